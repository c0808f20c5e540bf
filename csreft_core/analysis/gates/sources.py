"""Whose gates a table compares: the run's own, the oracle's, equal ones, and those of other runs.

The controls of the Router page.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from csreft_core.analysis.subject import Subject
from csreft_core.config import ASSETS
from csreft_core.inference.scoring import row_labels
from csreft_core.reft.adapter import check_base, load_adapter
from csreft_core.runs.all_runs import open_run
from csreft_core.skills.skill_set import Row

READS = {
    "first_token": "first token",
    "last_prompt_token": "last prompt token",
    "mean_prompt": "mean of the prompt",
}


@dataclass(frozen=True)
class Source:
    """Gates of the same prompts from one place.

    Attributes:
        name: `learned`, `oracle`, `uniform`, or another run with what its router reads.
        subject: Whose edits the gates are for.
        gates: A row for each prompt, in [0, 1].
    """

    name: str
    subject: Subject
    gates: Float[np.ndarray, "prompt k"]

    @property
    def threshold(self) -> float:
        """A gate above it is open."""
        return self.subject.adapter.spec.router.threshold


def can_be_oracle(subject: Subject, rows: Sequence[Row]) -> bool:
    """Whether every row has skills, and each of them a subspace of its name."""
    names = set(subject.adapter.names)
    return all(row.skills and set(row.skills) <= names for row in rows)


def other_subject(path: str, subject: Subject) -> Subject:
    """Another run on the same base and with the same data, as a control.

    Args:
        path: Run folder, absolute, or relative to here or to the project.
        subject: Gives the base and the data.

    Raises:
        RunError: no run there, or a damaged one.
        AdapterError: no adapter, a damaged one, or one of another base.
    """
    folder = Path(path) if Path(path).exists() else ASSETS.parent / path
    run = open_run(folder)
    adapter, base = load_adapter(run.adapter_path), subject.engine.base
    check_base(adapter, base.fingerprint, base.id)
    return replace(subject, adapter=adapter, config=run.config(), run=run)


def other_name(other: Subject) -> str:
    """The run's name and what its router reads, such as `paper-0 (first token)`."""
    name = other.run.name if other.run else "other"
    if other.adapter.router is None:
        return f"{name} ({other.trained_gates} gates)"
    return f"{name} ({READS[other.adapter.spec.router.input]})"


def gate_sources(subject: Subject, rows: Sequence[Row], others: Sequence[str] = ()) -> list[Source]:
    """The run's own gates first, then the controls that the rows allow.

    Args:
        subject: The opened run.
        rows: The prompts; oracle gates need their skills.
        others: Run folders.
    """
    own = subject.own_setting
    settings = dict.fromkeys((own, "oracle", "uniform"))
    if not can_be_oracle(subject, rows):
        settings.pop("oracle")
    found = [Source(name, subject, _gates(subject, rows, name)) for name in settings]
    for path in others:
        other = other_subject(path, subject)
        setting = other.own_setting
        if setting != "oracle" or can_be_oracle(other, rows):
            found.append(Source(other_name(other), other, _gates(other, rows, setting)))
    return found


def own_source(subject: Subject, rows: Sequence[Row]) -> Source:
    """The gates that the run itself sets: its router's, or those that it was trained with."""
    own = subject.own_setting
    return Source(own, subject, _gates(subject, rows, own))


def _gates(subject: Subject, rows: Sequence[Row], setting: str) -> Float[np.ndarray, "prompt k"]:
    names = subject.adapter.names
    if setting == "oracle":
        return row_labels(rows, names).double().numpy()
    if setting == "uniform":
        return np.full((len(rows), len(names)), 1 / len(names))
    gates = subject.engine.gates(
        subject.adapter, subject.prompts_of(rows), setting, template=subject.template,
        batch_size=256,
    )  # fmt: skip
    return gates.double().numpy()
