"""What the shipped runs say: what is kept is what one measures, and is not taken for other runs."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from csreft_core.analysis.claims import rules
from csreft_core.analysis.claims.shipped_runs import (
    EXAMPLES,
    FROM_RUNS,
    KEPT,
    run_measurements,
    runs_table,
)
from csreft_core.errors import RunError


def kept() -> pd.DataFrame:
    return pd.DataFrame(json.loads(KEPT.read_text(encoding="utf-8")))


def copy_adapters(to: Path, *names: str) -> None:
    for name in names:
        (to / name).mkdir(parents=True)
        shutil.copy(Path(EXAMPLES) / name / "adapter.safetensors", to / name)


def test_what_is_kept_is_what_one_measures():
    # Other CPUs add in another order: what is not zero agrees to a thousandth.
    assert_frame_equal(runs_table(), kept(), rtol=1e-3, atol=1e-5)


def test_every_condition_of_the_runs_is_kept():
    assert set(kept()["condition"]) == set(FROM_RUNS)
    assert list(kept().columns) == [*rules.MEASURE_COLUMNS, "adapters"]


def test_the_same_runs_elsewhere_need_nothing_opened(tmp_path):
    """Without their configs: a run that is opened raises."""
    copy_adapters(tmp_path, *{name for names in FROM_RUNS.values() for name in names})
    found = run_measurements(tmp_path)
    assert [row["value"] for row in found] == kept()["value"].tolist()
    assert set(found[0]) == set(rules.MEASURE_COLUMNS)
    (tmp_path / "loreft-1/adapter.safetensors").unlink()
    with pytest.raises(RunError):
        run_measurements(tmp_path)


def test_other_runs_are_measured(tmp_path):
    """A LoReFT that was trained on another seed, in the place of the first one."""
    shutil.copytree(Path(EXAMPLES) / "loreft-1", tmp_path / "loreft-0")
    found = {row["condition"]: row for row in run_measurements(tmp_path)}
    assert set(found) == {"R1.inside", "R1.target", "R4.with", "R4.against"}
    before = kept().set_index("condition")["value"]
    assert found["R4.with"]["value"] != pytest.approx(before["R4.with"], rel=1e-4)
    assert found["R4.with"]["seeds"] == 1
    assert found["R4.with"]["source"] == "runs loreft-0"
