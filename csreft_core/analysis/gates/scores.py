"""How held-out rows score under gates: row by row, as means with intervals, over thresholds."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from csreft_core.analysis.gates.sources import Source
from csreft_core.analysis.labels import HARD, SOFT
from csreft_core.analysis.losses import answer_tokens, losses_under
from csreft_core.analysis.statistics.intervals import (
    Units,
    mean_interval,
    share_interval,
    spread,
    units_of,
)
from csreft_core.analysis.subject import Subject
from csreft_core.skills.skill_set import Row, skill_name


def row_scores(
    subject: Subject, rows: Sequence[Row], gates: str | Float[Tensor, "row k"]
) -> pd.DataFrame:
    """How each row's answer scores under gates, teacher-forced.

    Args:
        subject: Base, adapter and template.
        rows: With answers.
        gates: A setting for all, or a row of gates for each.

    Returns:
        Columns skill, nll (nats, over the whole answer), n_tokens (of the answer), exact_match
        (1 or 0), a line for each row.
    """
    return scores_of_rows(subject, rows, [gates])[0]


def scores_of_rows(
    subject: Subject, rows: Sequence[Row], settings: Sequence[str | Float[Tensor, "row k"]]
) -> list[pd.DataFrame]:
    """As `row_scores`, under each of several settings."""
    encoded = subject.encoded(rows)
    skills, tokens = [skill_name(row) for row in rows], answer_tokens(encoded)
    return [
        pd.DataFrame({"skill": skills, "nll": nll, "n_tokens": tokens, "exact_match": exact})
        for nll, exact in losses_under(subject, encoded, settings)
    ]


def mean_scores(
    scores: pd.DataFrame, units: Units, reference: pd.DataFrame | None = None
) -> dict[str, tuple[float, float, float]]:
    """Loss and exact match as `scoring.evaluate` means them, with 95 % intervals.

    Both are plain means over the skills.

    Args:
        scores: `row_scores`.
        units: Of the same rows.
        reference: Scores of the same rows under other gates.

    Returns:
        For `loss` (nats per answer token), `exact_match` (0 to 1) and, with a reference, `gap`
        (loss minus the reference's, paired by rows): value, low, high.
    """
    nll, tokens, exact = (scores[c].to_numpy() for c in ("nll", "n_tokens", "exact_match"))
    parts = [nll, exact] if reference is None else [nll, exact, nll - reference["nll"].to_numpy()]
    groups = scores.groupby("skill", sort=False).indices.values()

    def statistic(weights: np.ndarray) -> np.ndarray:
        means = []
        for i in groups:
            w = weights[..., i]
            means.append(
                [
                    (w @ part[i]) / (w @ (tokens[i] if p != 1 else np.ones(len(i))))
                    for p, part in enumerate(parts)
                ]
            )
        return np.mean(means, axis=0)

    estimates = spread(statistic, units)
    means, shares = mean_interval(estimates), share_interval(estimates)
    ends = {
        name: shares if name == "exact_match" else means
        for name in ("loss", "exact_match", "gap")[: len(parts)]
    }
    return {
        name: (float(estimates.value[i]), float(low[i]), float(high[i]))
        for i, (name, (low, high)) in enumerate(ends.items())
    }


def score_settings(
    subject: Subject, rows: Sequence[Row], sources: Sequence[Source]
) -> pd.DataFrame:
    """Scores of the rows under each source's gates, `hard` and `off`; see `settings_table`."""
    gates_of = {s.name: s.gates for s in sources if s.subject is subject}
    gates_of["off"] = torch.zeros(len(rows), subject.adapter.n_subspaces)
    if sources[0].name == "learned":
        gates_of[HARD] = torch.from_numpy(sources[0].is_open()).float()
    own = scores_of_rows(subject, rows, list(gates_of.values()))
    scores = dict(zip(gates_of, own, strict=True))
    scores |= {
        s.name: row_scores(s.subject, rows, s.gates) for s in sources if s.name not in scores
    }
    names = [s.name for s in sources]
    order = [names[0], *([HARD] if HARD in scores else []), *names[1:], "off"]
    units = units_of(rows)
    records = [
        {"source": name} | _columns(mean_scores(scores[name], units, scores[names[0]]))
        for name in order
    ]
    return pd.DataFrame(records).assign(n=len(rows), over=units.over)


def score_sweep(name: str, subject: Subject, rows: Sequence[Row], steps: int) -> pd.DataFrame:
    """Scores of the rows under soft gates and cut at each threshold; see `sweep_table`."""
    soft, units = subject.gates(rows), units_of(rows)
    thresholds = np.linspace(0, 1, steps)
    cut = [(soft > threshold).float() for threshold in thresholds]
    # Most thresholds open the same gates; each pattern is scored once.
    different = {hard.numpy().tobytes(): hard for hard in cut}
    reference, *scores = scores_of_rows(subject, rows, [soft, *different.values()])
    means = {
        key: _columns(mean_scores(score, units, reference))
        for key, score in zip(different, scores, strict=True)
    }
    start = {"source": name, "gates": SOFT, "threshold": float("nan")}
    records = [
        start | {"n_open": float("nan")} | _columns(mean_scores(reference, units, reference))
    ]
    for threshold, hard in zip(thresholds, cut, strict=True):
        place = {
            "gates": HARD,
            "threshold": float(threshold),
            "n_open": float(hard.sum(1).mean()),
        }
        records.append({"source": name} | place | means[hard.numpy().tobytes()])
    return pd.DataFrame(records).assign(n=len(rows), over=units.over)


def _columns(scores: dict[str, tuple[float, float, float]]) -> dict[str, float]:
    return {
        f"{name}{end}": value
        for name, values in scores.items()
        for end, value in zip(("", "_low", "_high"), values, strict=True)
    }
