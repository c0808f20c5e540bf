"""Opening a run, and another one beside it on the same base."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from csreft_core.analysis.answers.tables import next_token_table
from csreft_core.analysis.gates.tables import distribution_table
from csreft_core.analysis.geometry.tables import seeds_table
from csreft_core.analysis.interference.tables import settings_table, single_skill_table
from csreft_core.analysis.subject import Subject, beside, open_subject
from csreft_core.errors import AdapterError, RunError
from csreft_core.reft.adapter import load_adapter, save_adapter
from csreft_core.runs.all_runs import create_run

SHIPPED = "assets/examples/paper-0"


@pytest.fixture(scope="module")
def subject() -> Subject:
    return open_subject("assets/examples/recommended-0")


WAYS: dict[str, Callable[[Subject, str], pd.DataFrame]] = {
    "gates": lambda s, path: distribution_table(s, others=[path], per_skill=1),
    "geometry": lambda s, path: seeds_table(s, others=[path], draws=2),
    "interference": lambda s, path: settings_table(s, others=[path], per_skill=1),
    "answers": lambda s, path: next_token_table(s, others=[path], per_skill=1, top=1),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_table_finds_a_shipped_run_from_any_folder(subject, way, tmp_path, monkeypatch):
    expected = WAYS[way](subject, SHIPPED)
    monkeypatch.chdir(tmp_path)
    pd.testing.assert_frame_equal(WAYS[way](subject, SHIPPED), expected)
    with pytest.raises(RunError, match="nowhere"):
        WAYS[way](subject, "nowhere")


def made_on(subject: Subject, part: int, folder: Path) -> str:
    """A copy of the run whose base differed in one part of its record."""
    run = create_run(folder, subject.config, subject.skill_set)
    adapter = load_adapter(subject.run.adapter_path)
    record = subject.engine.base.fingerprint.split("-")
    record[part] = "0" * len(record[part])
    adapter.spec = replace(adapter.spec, base_fingerprint="-".join(record))
    save_adapter(adapter, run.adapter_path)
    return str(folder)


@pytest.mark.parametrize("way", WAYS)
def test_another_chat_template_matters_to_no_table_of_plain_prompts(subject, way, tmp_path):
    other_template = made_on(subject, 4, tmp_path / "template")
    assert len(WAYS[way](subject, other_template))
    other_weights = made_on(subject, 1, tmp_path / "weights")
    with pytest.raises(AdapterError, match="other weights"):
        WAYS[way](subject, other_weights)


def test_a_run_beside_another_keeps_base_and_data_and_brings_the_rest(subject):
    other = beside(subject, SHIPPED)
    assert other.engine is subject.engine
    assert other.skill_set is subject.skill_set
    assert (other.name, subject.name) == ("paper-0", "recommended-0")
    assert other.config == other.run.config() != subject.config
    assert other.adapter.spec != subject.adapter.spec


def test_runs_that_learn_one_skill_are_found_from_any_folder(subject, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="learns 4 skills"):
        single_skill_table(subject, others=[SHIPPED])
