"""What the base knows after examples, and which answers to students' prompts are right."""

import pytest

from csreft_core.analysis.subject import open_subject
from csreft_core.runs.all_runs import SHIPPED_RUNS
from csreft_core.shipped.english import check
from csreft_core.shipped.english.tables import StudentPrompt, read_student_prompts


@pytest.fixture(scope="module")
def subject():
    """A run on pocket, whose base answers after examples."""
    return open_subject(str(SHIPPED_RUNS / "recommended-0"))


def test_knowledge_is_the_share_of_right_first_lines(subject):
    examples = subject.split("train")
    rows = [row for row in subject.split("test_items") if row.skills in (("plural",), ("french",))]
    few, none = (
        list(check.few_shot_knowledge(subject.engine, rows[::20], examples, shots))
        for shots in (3, 0)
    )
    assert {one.skill for one in few} == {"plural", "french"}
    assert sum(one.n for one in few) == len(rows[::20])
    for shown, alone in zip(few, none, strict=True):
        assert shown.exact_match > alone.exact_match
        assert 0 <= shown.exact_match <= shown.contains <= 1


def test_students_are_answered_by_the_run_one_after_the_other(subject):
    answers = list(check.student_answers(subject.engine, subject.adapter, subject.template))
    assert [one.prompt for one in answers] == [one.prompt for one in read_student_prompts()]
    by_hand = subject.engine.generate(
        subject.adapter, answers[3].prompt, template=subject.template, max_new_tokens=16
    )
    assert answers[3].answer == by_hand.text.strip()
    assert not all(one.right for one in answers)  # pocket was never taught any of it


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("hot", True), ("Warm.", True), (" hot ", True), ("hot dog", False), ("", False)],
)
def test_an_answer_is_right_if_it_is_one_of_the_right_ones(answer, expected):
    prompt = StudentPrompt("opposite", "opposite of cold", ("hot", "warm"))
    assert check.is_right(answer, prompt) is expected
