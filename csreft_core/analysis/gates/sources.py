"""Whose gates a table compares: the run's own, the oracle's, equal ones, and those of other runs.

The controls of the Router page.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from torch import Tensor

from csreft_core.analysis.gates.metrics import metric_rows
from csreft_core.analysis.labels import READS
from csreft_core.analysis.subject import Subject, beside
from csreft_core.inference.scoring import row_labels
from csreft_core.reft.gate_settings import parse_gate_setting
from csreft_core.reft.given_gates import given_gates
from csreft_core.skills.skill_set import Row


@dataclass(frozen=True)
class Source:
    """Gates of the same prompts from one place.

    Attributes:
        name: `learned`, `oracle`, `uniform`, or another run with what its router reads.
        subject: Whose edits the gates are for.
        gates: A row for each prompt, in [0, 1], as the edits take them.
    """

    name: str
    subject: Subject
    gates: Float[Tensor, "prompt k"]

    @property
    def values(self) -> Float[np.ndarray, "prompt k"]:
        """The gates in float64, for statistics."""
        return self.gates.double().numpy()

    @property
    def threshold(self) -> float:
        """A gate above it is open."""
        return self.subject.adapter.spec.router.threshold

    def is_open(self, threshold: float | None = None) -> Bool[np.ndarray, "prompt k"]:
        """Which gates are above a threshold; None takes that of the router."""
        return self.values > (self.threshold if threshold is None else threshold)


def router_setting(subject: Subject) -> str:
    """What the Router page is about: what a router decides, else the gates of the training.

    Where a router was taught beside given gates, the two differ (`Subject.trained_gates`).
    """
    return "learned" if subject.adapter.router is not None else subject.trained_gates


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
    settings = dict.fromkeys((router_setting(subject), "oracle", "uniform"))
    if not subject.has_labels(rows):
        settings.pop("oracle")
    sources = [Source(name, subject, _gates(subject, rows, name)) for name in settings]
    for path in others:
        other = beside(subject, path)
        setting = router_setting(other)
        if setting != "oracle" or other.has_labels(rows):
            sources.append(Source(other_name(other), other, _gates(other, rows, setting)))
    return sources


def own_metrics(subject: Subject, split: str = "test") -> pd.DataFrame:
    """The rows of `metrics_table` for the run's own gates, without the controls."""
    rows = subject.split(split)
    own = router_setting(subject)
    return metrics_of(Source(own, subject, _gates(subject, rows, own)), rows)


def metrics_of(source: Source, rows: Sequence[Row], threshold: float | None = None) -> pd.DataFrame:
    """The rows of `metrics_table` for one source."""
    limit = source.threshold if threshold is None else threshold
    table = metric_rows(source.values, rows, source.subject.adapter.names, limit)
    table.insert(0, "source", source.name)
    return table


def _gates(subject: Subject, rows: Sequence[Row], setting: str) -> Float[Tensor, "prompt k"]:
    names = subject.adapter.names
    parsed = parse_gate_setting(setting, names)
    fixed = given_gates(parsed, len(rows), row_labels(rows, names))
    # Gates that are given need no forward of the base.
    return subject.gates(rows, setting) if fixed is None else fixed
