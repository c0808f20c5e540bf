"""What the shipped runs say about the claims: kept in a file, and measured again for other runs.

`python -m csreft_core judge claims --table runs --json > assets/claims.json` keeps it; a test
measures it again. A run that was trained anew has another adapter, so what is kept is not taken
for it.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from csreft_core.analysis.claims.rules import MEASURE_COLUMNS
from csreft_core.analysis.claims.runs import (
    Measurement,
    composition_gain,
    edit_in_subspace,
    routing,
    scaled_edit,
)
from csreft_core.analysis.subject import Subject, open_subject
from csreft_core.config import ASSETS
from csreft_core.inference.engine import Engine
from csreft_core.runs.all_runs import SHIPPED_RUNS
from csreft_core.runs.run import Run

EXAMPLES = str(SHIPPED_RUNS)
"""Folder of the shipped runs."""

KEPT = ASSETS / "claims.json"
"""The rows of `runs_table` of the shipped runs."""

FROM_RUNS = {
    "C3.gain": ("recommended-0", "recommended-1", "recommended-2"),
    "C4.nmi": ("unsupervised-0", "unsupervised-1", "unsupervised-2", "paper-0"),
    "R1.inside": ("loreft-0",),
    "R1.target": ("loreft-0",),
    "R4.with": ("loreft-0", "loreft-1", "loreft-2"),
    "R4.against": ("loreft-0", "loreft-1", "loreft-2"),
}
"""Condition -> the shipped runs that it is measured on."""


def runs_table(*, examples: str = EXAMPLES, engine: Engine | None = None) -> pd.DataFrame:
    """What the runs say, measured now: some ten seconds of computing.

    Args:
        examples: Folder of the runs that `build-examples` makes.
        engine: Their base, where it is loaded already.

    Returns:
        The columns `claims.rules.MEASURE_COLUMNS`, and adapters (of the runs that were there: the
        first twelve digits of the SHA-256 of each).

    Raises:
        RunError, AdapterError: a run is damaged.
    """
    folder = Path(examples)
    rows = [row | {"adapters": _adapters(folder, row)} for row in _measure(folder, engine)]
    return pd.DataFrame(rows, columns=[*MEASURE_COLUMNS, "adapters"])


def run_measurements(examples: Path, engine: Engine | None = None) -> list[Measurement]:
    """What the runs say: as it is kept, where these are the runs that it was measured on.

    A condition whose run is missing has no row.

    Args:
        examples: See `runs_table`.
        engine: See `runs_table`.
    """
    kept: list[Measurement] = json.loads(KEPT.read_text(encoding="utf-8"))
    if any(row["adapters"] != _adapters(examples, row) for row in kept):
        return _measure(examples, engine)
    # JSON has no NaN.
    return [
        {name: float("nan") if row[name] is None else row[name] for name in MEASURE_COLUMNS}
        for row in kept
    ]


def _adapters(examples: Path, row: Measurement) -> str:
    files = [Run(examples / name).adapter_path for name in FROM_RUNS[row["condition"]]]
    there = (file.read_bytes() for file in files if file.exists())
    return " ".join(hashlib.sha256(content).hexdigest()[:12] for content in there)


def _measure(examples: Path, engine: Engine | None) -> list[Measurement]:
    subjects: dict[str, Subject] = {}
    for name in dict.fromkeys(name for names in FROM_RUNS.values() for name in names):
        if Run(examples / name).adapter_path.exists():
            subjects[name] = open_subject(str(examples / name), engine)
            engine = subjects[name].engine
    rows: list[Measurement] = []
    seeds = _present(subjects, FROM_RUNS["C3.gain"])
    if seeds:
        rows.append(composition_gain(seeds))
    unlabelled = _present(subjects, FROM_RUNS["C4.nmi"][:-1])
    if unlabelled:
        rows.append(routing(unlabelled, subjects.get("paper-0")))
    if "loreft-0" in subjects:
        rows += edit_in_subspace(subjects["loreft-0"])
    edited = _present(subjects, FROM_RUNS["R4.with"])
    if edited:
        rows += scaled_edit(edited)
    return [row | {"source": _source(row["condition"], subjects)} for row in rows]


def _present(subjects: dict[str, Subject], names: Iterable[str]) -> Sequence[Subject]:
    return [subjects[name] for name in names if name in subjects]


def _source(condition: str, subjects: dict[str, Subject]) -> str:
    return "runs " + ", ".join(name for name in FROM_RUNS[condition] if name in subjects)
