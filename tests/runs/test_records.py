"""The records of a run are checked when they are read."""

import pytest

from csreft_core.errors import RunError
from csreft_core.runs.records import fault_of, read_since
from tests.page_runs import records

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"kind": "step", "step": 1, "elapsed_s": 1e308}', "elapsed_s: Input should be less"),
        ('{"kind": "step", "step": 1, "elapsed_s": "long"}', "elapsed_s: Input should be a valid"),
        ('{"kind": "step", "step": 1, "time_left_s": -1}', "time_left_s"),
        ('{"kind": "step", "step": 1, "loss": "nan"}', "loss"),
        ('{"kind": "step"}', "step: Field required"),
        ('{"kind": "eval", "step": 1}', "skills: Field required"),
        ('{"kind": "eval", "step": 1, "skills": {"a": {}}}', "skills.a.loss: Field required"),
        ('{"kind": "eval", "step": 1, "skills": [1]}', "skills"),
        ('{"kind": [1], "step": 1}', "kind"),
        ('{"kind": "step", "step": 1, "gates_by_skill": {"a": 3}}', "gates_by_skill.a"),
        ('{"kind": "eval", "step": 1, "skills": {"\\ud800": null}}', "broken line"),
        ("[" * 9999, "broken line"),
    ],
)
def test_a_line_of_another_form_is_named(tmp_path, line, words):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "step", "step": 0}\n' + line + "\n")
    with pytest.raises(RunError, match="take the line out") as caught:
        read_since(path, 0)
    assert words in str(caught.value)


def test_what_a_trainer_writes_has_no_fault():
    assert {fault_of(record) for record in records()} == {None}
    lost = {"loss": None, "exact_match": 0.0, "n": 3}  # a loss that was not finite
    assert fault_of({"kind": "eval", "step": 1, "skills": {"a": lost}}) is None
    assert fault_of({"kind": "of a newer program", "step": 1, "more": [1]}) is None
