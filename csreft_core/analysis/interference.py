"""Who helps or hurts whom: losses of every skill under every gate setting, as tidy tables.

A change of loss is in nats per answer token; below 0 helps, above 0 hurts. Intervals are paired
bootstraps over the prompts, see `losses.per_token`. The sentences are in `interference_sentences`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from csreft_core.adapter import CSReFT
from csreft_core.analysis.composition import best_patterns, pattern_table
from csreft_core.analysis.losses import (
    answer_losses,
    answer_tokens,
    fitting_settings,
    greedy_answers,
    per_token,
    rows_by_skill,
    subset,
    trained_gates,
    trained_setting,
)
from csreft_core.analysis.single_skill import same_settings, trained_skills
from csreft_core.analysis.subject import Subject, open_subject
from csreft_core.analysis.subspace_metrics import orthonormal_basis, overlap
from csreft_core.errors import ConfigError, RunError
from csreft_core.evaluation import Encoded, row_labels
from csreft_core.runs import open_run

TABLES = ("settings", "examples", "pairs", "regret", "overlap", "single_skill")
"""The tables of this view, `NAME_table`; the first is what `inspect` prints by default."""

MEASURES = ("I_on", "S", "A")
RUN = "run:"
"""In front of a run's name, where another run stands in for a gate setting."""

SETTING_COLUMNS = ("skill", "setting", "kind", "loss", "change", "low", "high", "exact_match", "n")
EXAMPLE_COLUMNS = (
    "skill", "setting", "prompt", "response", "loss_before", "loss_after", "change", "answer",
)  # fmt: skip
PAIR_COLUMNS = (
    "measure", "changed", "skill", "own", "change", "low", "high", "reference", "relative", "n",
)  # fmt: skip
REGRET_COLUMNS = ("skill", "setting", "kind", "loss", "best", "regret", "low", "high", "n")
OVERLAP_COLUMNS = ("run", "constraint", "changed", "skill", "overlap", "change", "low", "high", "n")
SINGLE_COLUMNS = (
    "kind", "run", "changed", "skill", "own", "before", "after", "change", "relative", "n",
)  # fmt: skip


def settings_table(
    subject: Subject,
    *,
    split: str = "test",
    per_skill: int | None = None,
    others: Sequence[str] = (),
) -> pd.DataFrame:
    r"""Loss of each skill under each gate setting, and its change against closed gates.

    $L_j(\alpha) - L_j(0)$, where $L_j$ is the loss on the prompts of skill j; closed gates are the
    base. The columns `only:<skill>` are the transfer S.

    Args:
        subject: The opened run.
        split: A split of the run's skill set.
        per_skill: At most so many prompts of each skill.
        others: Run folders that are shown beside it, under the gates they were trained with, such
            as one shared LoReFT of the same total rank.

    Returns:
        Columns skill (two joined by `+`), setting (a gate setting, or `run:<name>`), kind (`run`,
        or `control` for another run), loss and change (nats per answer token), low and high (95 %
        interval of the change), exact_match (share of prompts, teacher-forced), n (prompts).

    Raises:
        SkillSetError: the split is unknown or empty.
        RunError, AdapterError, ConfigError: another run that is missing or does not fit.
    """
    encoded = subject.encoded(subject.split(split, per_skill))
    tokens, groups = answer_tokens(encoded), rows_by_skill(encoded)
    found = {
        (setting, "run"): answer_losses(subject, encoded, setting)
        for setting in fitting_settings(subject, encoded.rows)
    }
    for path in others:
        other = _beside(subject, path)
        scores = answer_losses(other, encoded, trained_setting(other))
        found[f"{RUN}{_name(other)}", "control"] = scores
    losses = np.stack([nll for nll, _ in found.values()])
    exact = np.stack([right for _, right in found.values()])
    rows = []
    for skill, places in groups.items():
        loss, n = losses[:, places], len(places)
        means = loss.sum(1) / tokens[places].sum()
        columns = (means, *per_token(loss - loss[:1], tokens[places]), exact[:, places].mean(1))
        rows += [
            (skill, *names, *values, n)
            for names, *values in zip(found, *(c.tolist() for c in columns), strict=True)
        ]
    return pd.DataFrame(rows, columns=list(SETTING_COLUMNS))


def _beside(subject: Subject, path: str) -> Subject:
    """Another run on the same base and with the same template, so that losses compare."""
    other = open_subject(path, subject.engine)
    if other.template != subject.template:
        raise ConfigError(
            f"run {_name(other)!r} was trained with another template, so its losses do not compare"
        )
    return other


def _name(subject: Subject) -> str:
    return subject.run.name if subject.run is not None else "this run"


def examples_table(
    subject: Subject,
    *,
    skill: str,
    gates: str = "learned",
    split: str = "test",
    per_skill: int | None = None,
    others: Sequence[str] = (),
    most: int = 8,
) -> pd.DataFrame:
    """The prompts behind one cell of `settings_table`, those that are hurt most first.

    Args:
        subject: The opened run.
        skill: Prompts of this skill.
        gates: A gate setting, or `run:<name>` for one of the others.
        split: A split of the run's skill set.
        per_skill: At most so many prompts of each skill.
        others: Run folders that `gates` may name.
        most: So many prompts are shown, half of them those that are helped most; the greedy
            answer is computed for these.

    Returns:
        Columns skill, setting, prompt, response (the right answer), loss_before (closed gates),
        loss_after and change (nats per answer token of this prompt), answer (greedy decoding).

    Raises:
        ConfigError: no prompt of that skill, or a setting that does not fit.
    """
    encoded = subject.encoded(subject.split(split, per_skill))
    groups = rows_by_skill(encoded)
    if skill not in groups:
        raise ConfigError(f"no prompt of skill {skill!r}; choose one of {', '.join(groups)}")
    asked, setting = subject, gates
    if gates.startswith(RUN):
        named = {_name(other): other for other in (_beside(subject, path) for path in others)}
        if gates.removeprefix(RUN) not in named:
            raise ConfigError(f"gates {gates!r}: no such run among {', '.join(named) or 'none'}")
        asked = named[gates.removeprefix(RUN)]
        setting = trained_setting(asked)
    part = subset(encoded, groups[skill])
    tokens = answer_tokens(part)
    before = answer_losses(subject, part, "off")[0] / tokens
    after = answer_losses(asked, part, setting)[0] / tokens
    order = np.argsort(before - after, kind="stable")
    half = (most + 1) // 2
    chosen = order if len(order) <= most else np.concatenate([order[:half], order[half - most :]])
    answers = greedy_answers(asked, subset(part, chosen), setting)
    rows = [
        (skill, gates, part.rows[i].prompt, part.rows[i].response, before[i], after[i],
         after[i] - before[i], answer)
        for i, answer in zip(chosen, answers, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(EXAMPLE_COLUMNS))


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
        reference, no unit), n (prompts). `I_on` has the skills only that a subspace is named after.

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
    start = _start_gates(subject, encoded, measure)
    tokens, loss = answer_tokens(encoded), answer_losses(subject, encoded, start)[0]
    change = _without if measure == "A" else _switched
    switched = [change(subject, encoded, start, loss, i) for i in range(len(names))]
    before, after = (np.stack(side) for side in zip(*switched, strict=True))
    rows = []
    for skill, places in rows_by_skill(encoded).items():
        found = per_token((after - before)[:, places], tokens[places])
        reference = before[:, places].sum(1) / tokens[places].sum()
        columns = (found[0], *found[1:], reference, found[0] / reference)
        rows += [
            (measure, changed, skill, changed in skill.split("+"), *values, len(places))
            for changed, *values in zip(names, *(c.tolist() for c in columns), strict=True)
        ]
    return pd.DataFrame(rows, columns=list(PAIR_COLUMNS))


def _start_gates(subject: Subject, encoded: Encoded, measure: str) -> Float[Tensor, "row k"]:
    if measure == "S":
        return torch.zeros(len(encoded.rows), subject.adapter.n_subspaces)
    if measure == "I_on":
        return row_labels(encoded.rows, subject.adapter.names)
    return trained_gates(subject, encoded)


def _switched(
    subject: Subject, encoded: Encoded, start: Float[Tensor, "row k"], loss: np.ndarray, i: int
) -> tuple[np.ndarray, np.ndarray]:
    """Losses with gate i closed and open, where `loss` is that of the start, gates of 0 and 1."""
    switched = start.clone()
    switched[:, i] = 1 - start[:, i]
    other = answer_losses(subject, encoded, switched)[0]
    is_open = start[:, i].numpy() == 1
    return np.where(is_open, other, loss), np.where(is_open, loss, other)


def _without(
    subject: Subject, encoded: Encoded, start: Float[Tensor, "row k"], loss: np.ndarray, i: int
) -> tuple[np.ndarray, np.ndarray]:
    """Losses as trained, and with gate i closed."""
    closed = start.clone()
    closed[:, i] = 0
    return loss, answer_losses(subject, encoded, closed)[0]


def interference_index(table: pd.DataFrame) -> float:
    r"""Mean harm that a gate does to other skills / mean |change| of the own.

    The harm is $\max(\text{change}, 0)$, or $\max(-\text{change}, 0)$ for the ablation `A`, which
    takes a gate away. 0 where no skill hurts another; 1 where the mean harm to others is as large
    as the mean own effect. A cell that helps counts as 0, so that help cannot hide harm.

    Args:
        table: Columns own (on the diagonal), change and, where there is one, measure.

    Returns:
        No unit; NaN without a diagonal or off-diagonal cell, or where the diagonal is 0.
    """
    own = table["own"].to_numpy(dtype=bool)
    change = table["change"].to_numpy(dtype=float)
    if own.all() or not own.any() or not np.abs(change[own]).any():
        return float("nan")
    ablation = "measure" in table and (table["measure"] == "A").all()
    harm = (-change if ablation else change)[~own].clip(min=0)
    return float(harm.mean() / np.abs(change[own]).mean())


def regret_table(
    subject: Subject, *, split: str = "test", per_skill: int | None = None
) -> pd.DataFrame:
    r"""How much worse a gate setting is than the best of all $2^k$ patterns of each prompt.

    $L(\alpha) - \min_{S \subseteq [k]} L(1_S)$, the minimum taken for each prompt.
    It knows the answer, so it is a bound and no router. Soft gates can beat every pattern; the
    regret is then below 0.

    Args:
        subject: The opened run.
        split: A split of the run's skill set.
        per_skill: At most so many prompts of each skill.

    Returns:
        Columns skill, setting, kind (`run` for the gates as trained, else `control`), loss and
        best (nats per answer token), regret, low and high (its 95 % interval), n (prompts).

    Raises:
        ConfigError: more than 8 subspaces.
        SkillSetError: the split is unknown or empty.
    """
    encoded = subject.encoded(subject.split(split, per_skill))
    patterns = pattern_table(subject.engine.attachment, subject.adapter, encoded)
    best = best_patterns(patterns).sort_values("row")["nll"].to_numpy(dtype=float)
    own = trained_setting(subject)
    fitting = [s for s in fitting_settings(subject, encoded.rows) if not s.startswith("only:")]
    settings = list(dict.fromkeys([own, *fitting]))
    losses = np.stack([answer_losses(subject, encoded, setting)[0] for setting in settings])
    tokens, rows = answer_tokens(encoded), []
    for skill, places in rows_by_skill(encoded).items():
        n_tokens, n = tokens[places], len(places)
        means = losses[:, places].sum(1) / n_tokens.sum()
        lowest = float(best[places].sum() / n_tokens.sum())
        found = per_token(losses[:, places] - best[places], n_tokens)
        rows += [
            (skill, setting, "run" if setting == own else "control", mean, lowest, *values, n)
            for setting, mean, *values in zip(
                settings, means.tolist(), *(x.tolist() for x in found), strict=True
            )
        ]
    return pd.DataFrame(rows, columns=list(REGRET_COLUMNS))


def overlaps(adapter: CSReFT) -> Float[np.ndarray, "k k"]:
    """Normalised overlap of each pair of subspaces, the mean over layers and position groups.

    See `subspace_metrics.overlap`: in [0, 1], 1 on the diagonal, r/d between random subspaces.
    """
    found = []
    for layer in adapter.layers:
        with torch.no_grad():
            groups = adapter.at(layer).basis().double().cpu().numpy()
        for group in groups:
            Q = [orthonormal_basis(R) for R in group]
            found.append([[overlap(a, b) for b in Q] for a in Q])
    return np.mean(found, axis=0)


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
        split: A split of each run's skill set.
        per_skill: At most so many prompts of each skill.
        others: Run folders to pool with it.

    Returns:
        Columns run, constraint, changed (i), skill (j), overlap (0 to 1), change (I_on[i, j], nats
        per answer token), low, high (95 % interval of the change), n (prompts). Empty where no two
        subspaces are named after skills.

    Raises:
        SkillSetError: the split is unknown or empty.
        RunError, AdapterError, ConfigError: another run that is missing or does not fit.
    """
    parts = [pd.DataFrame(columns=list(OVERLAP_COLUMNS))]
    for each in (subject, *(_beside(subject, path) for path in others)):
        names, shared = each.adapter.names, overlaps(each.adapter)
        pairs = pairs_table(each, split=split, per_skill=per_skill)
        pairs = pairs[~pairs["own"].astype(bool) & pairs["skill"].isin(names)]
        places = [
            (names.index(i), names.index(j))
            for i, j in zip(pairs["changed"], pairs["skill"], strict=True)
        ]
        pairs = pairs.assign(
            run=_name(each),
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
        run = open_run(Path(path))
        skills = trained_skills(run)
        if len(skills) != 1:
            raise RunError(
                f"run {run.name!r} learns {len(skills)} skills; give runs that learn one skill each"
            )
        evaluations = [record for record in run.metrics() if record.get("kind") == "eval"]
        if len(evaluations) < 2:
            raise RunError(f"run {run.name!r} is not evaluated twice yet; wait until it is done")
        kind = "run" if same_settings(run.config(), subject.config) else "control"
        first, last = evaluations[0]["skills"], evaluations[-1]["skills"]
        for skill in first:
            before, after = first[skill]["loss"], last[skill]["loss"]
            change = after - before
            rows.append(
                (kind, run.name, skills[0], skill, skill == skills[0], before, after, change,
                 change / before, last[skill]["n"])
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(SINGLE_COLUMNS))
