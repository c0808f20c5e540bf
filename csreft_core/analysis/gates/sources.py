"""Whose gates a table compares: the run's own, the oracle's, equal ones, and those of other runs.

The controls of the Router page.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from csreft_core.analysis.subject import Subject, beside
from csreft_core.inference.scoring import row_labels
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


def other_name(other: Subject) -> str:
    """The run's name and what its router reads, such as `paper-0 (first token)`."""
    if other.adapter.router is None:
        return f"{other.name} ({other.trained_gates} gates)"
    return f"{other.name} ({READS[other.adapter.spec.router.input]})"


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
        other = beside(subject, path)
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
        subject.adapter,
        subject.prompts_of(rows),
        setting,
        template=subject.template,
        batch_size=256,
    )
    return gates.double().numpy()
