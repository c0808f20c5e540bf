"""Pairs of skills as tidy tables: one gate on every skill, overlap, training on one alone."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from csreft_core.analysis.interference.pairs import (
    comparable,
    overlaps,
    start_gates,
    switched,
)
from csreft_core.analysis.labels import CONTROL, RUN
from csreft_core.analysis.losses import (
    answer_tokens,
    per_token,
    rows_by_skill,
    subset,
)
from csreft_core.analysis.statistics.intervals import units_of
from csreft_core.analysis.subject import Subject, find_run
from csreft_core.errors import ConfigError
from csreft_core.runs.single_skill import (
    first_and_last,
    same_settings,
    the_trained_skill,
)

MEASURES = ("I_on", "S", "A")

PAIR_COLUMNS = (
    "measure",
    "changed",
    "skill",
    "own",
    "change",
    "low",
    "high",
    "reference",
    "relative",
    "n",
    "over",
)
OVERLAP_COLUMNS = (
    "run",
    "constraint",
    "changed",
    "skill",
    "overlap",
    "change",
    "low",
    "high",
    "n",
    "over",
)
SINGLE_COLUMNS = (
    "kind",
    "run",
    "changed",
    "skill",
    "own",
    "before",
    "after",
    "change",
    "relative",
    "n",
)


def pairs_table(
    subject: Subject,
    *,
    measure: str = "I_on",
    split: str = "test",
    per_skill: int | None = None,
) -> pd.DataFrame:
    r"""What one gate does to the loss of each skill.

    - `I_on`: $L_j(e_j + e_i) - L_j(e_j)$, gate i is opened beside the skill's own; on the diagonal
      what the own gate does alone, $L_j(e_j) - L_j(0)$ (own convention).
    - `S`: $L_j(e_i) - L_j(0)$, transfer: gate i alone against the base.
    - `A`: $L_j(\alpha,\ \alpha_i \leftarrow 0) - L_j(\alpha)$, ablation: gate i is closed, the
      others stay as trained. Below 0 the skill is better off without it.

    Args:
        subject: The opened run.
        measure: `I_on`, `S` or `A`.
        split: A split of the run's skill set.
        per_skill: At most so many prompts of each skill.

    Returns:
        Columns measure, changed (i), skill (j), own (i is a skill of the prompt), change, low and
        high (nats per answer token), reference ($L_j$ before the change), relative (change /
        reference, no unit), n (prompts), over (what the interval is over). `I_on` has the skills
        only that a subspace is named after.

    Raises:
        ConfigError: an unknown measure, or `A` with a router per token.
        SkillSetError: the split is unknown or empty.
    """
    if measure not in MEASURES:
        raise ConfigError(f"unknown measure {measure!r}; choose one of {', '.join(MEASURES)}")
    names = subject.adapter.names
    encoded = subject.encoded(subject.split(split, per_skill))
    if measure == "I_on":
        named = [i for i, row in enumerate(encoded.rows) if set(row.skills) & set(names)]
        encoded = subset(encoded, np.array(named, dtype=int))
    if not encoded.rows:
        return pd.DataFrame(columns=list(PAIR_COLUMNS))
    start = start_gates(subject, encoded, measure)
    tokens = answer_tokens(encoded)
    before, after = switched(subject, encoded, start, measure)
    rows = []
    for skill, places in rows_by_skill(encoded).items():
        units = units_of(subset(encoded, places).rows)
        changes = per_token((after - before)[:, places], tokens[places], units)
        reference = before[:, places].sum(1) / tokens[places].sum()
        columns = (changes[0], *changes[1:], reference, changes[0] / reference)
        rows += [
            (
                measure,
                changed,
                skill,
                changed in encoded.rows[places[0]].skills,
                *values,
                len(places),
                units.over,
            )
            for changed, *values in zip(names, *(c.tolist() for c in columns), strict=True)
        ]
    return pd.DataFrame(rows, columns=list(PAIR_COLUMNS))


def overlap_table(
    subject: Subject,
    *,
    split: str = "test",
    per_skill: int | None = None,
    others: Sequence[str] = (),
) -> pd.DataFrame:
    """Overlap of two subspaces beside their interference, a row for each ordered pair of skills.

    Args:
        subject: The opened run.
        split: A split of the run's skill set, which the other runs are measured on too.
        per_skill: At most so many prompts of each skill.
        others: Run folders to pool with it.

    Returns:
        Columns run, constraint, changed (i), skill (j), overlap (0 to 1), change (I_on[i, j], nats
        per answer token), low, high (95 % interval of the change), n (prompts), over (what it is
        over). Empty where no two subspaces are named after skills.

    Raises:
        SkillSetError: the split is unknown or empty.
        RunError, AdapterError, ConfigError: another run that is missing or does not fit.
    """
    parts = [pd.DataFrame(columns=list(OVERLAP_COLUMNS))]
    for each in (subject, *(comparable(subject, path) for path in others)):
        names, shared = each.adapter.names, overlaps(each.adapter)
        pairs = pairs_table(each, split=split, per_skill=per_skill)
        pairs = pairs[~pairs["own"].astype(bool) & pairs["skill"].isin(names)]
        places = [
            (names.index(i), names.index(j))
            for i, j in zip(pairs["changed"], pairs["skill"], strict=True)
        ]
        pairs = pairs.assign(
            run=each.name,
            constraint=each.config.adapter.constraint,
            overlap=[shared[place] for place in places],
        )
        parts.append(pairs[list(OVERLAP_COLUMNS)])
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else parts[0]


def single_skill_table(subject: Subject, *, others: Sequence[str] = ()) -> pd.DataFrame:
    r"""What training on one skill alone does to every skill: `I_train`.

    $I_{train}[i, j] = L_j(\text{after}) - L_j(\text{before})$, training on skill i's data, from
    the first and the last evaluation that the training wrote (validation split, gates as in
    training, all parameters trainable). The metrics hold means, so there is no interval.

    Args:
        subject: The run that the others are made from.
        others: Run folders that learned one skill each; those with other settings than the
            subject's are the control.

    Returns:
        Columns kind (`run` or `control`), run, changed (i, the trained skill), skill (j), own
        (i = j), before, after and change (nats per answer token), relative (change / before, no
        unit), n (prompts).

    Raises:
        RunError: a run that is missing, broken, or learns other than one skill.
    """
    rows = []
    for path in others:
        run = find_run(path)
        kind = RUN if same_settings(run.config(), subject.config) else CONTROL
        trained = the_trained_skill(run)
        for ends in first_and_last(run):
            before, after = ends.loss
            rows.append(
                (
                    kind,
                    run.name,
                    trained,
                    ends.skill,
                    ends.skill == trained,
                    before,
                    after,
                    after - before,
                    (after - before) / before,
                    ends.n,
                )
            )
    return pd.DataFrame(rows, columns=list(SINGLE_COLUMNS))
