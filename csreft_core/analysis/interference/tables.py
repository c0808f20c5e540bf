"""Who helps or hurts whom: losses of every skill under every gate setting, as tidy tables.

A change of loss is in nats per answer token; below 0 helps, above 0 hurts. Intervals are paired,
over what the column `over` says, see `intervals`. The sentences are in `interference.sentences`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from csreft_core.analysis.interference.composition import best_patterns, pattern_table
from csreft_core.analysis.interference.pairs import (
    losses_without,
    overlaps,
    start_gates,
    switched_losses,
)
from csreft_core.analysis.labels import CONTROL, OTHER_RUN, RUN
from csreft_core.analysis.losses import (
    answer_losses,
    answer_tokens,
    fitting_settings,
    greedy_answers,
    per_token,
    rows_by_skill,
    subset,
)
from csreft_core.analysis.statistics.intervals import units_of
from csreft_core.analysis.subject import Subject, beside, find_run
from csreft_core.errors import ConfigError
from csreft_core.runs.single_skill import (
    first_and_last,
    same_settings,
    the_trained_skill,
)

TABLES = ("settings", "examples", "pairs", "regret", "overlap", "single_skill")
"""The tables of this view, `NAME_table`; the first is what `inspect` prints by default."""

MEASURES = ("I_on", "S", "A")

SETTING_COLUMNS = (
    "skill",
    "setting",
    "kind",
    "loss",
    "change",
    "low",
    "high",
    "exact_match",
    "n",
    "over",
)
EXAMPLE_COLUMNS = (
    "skill",
    "setting",
    "prompt",
    "response",
    "loss_before",
    "loss_after",
    "change",
    "answer",
)
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
REGRET_COLUMNS = ("skill", "setting", "kind", "loss", "best", "regret", "low", "high", "n", "over")
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
        interval of the change), exact_match (share of prompts, teacher-forced), n (prompts), over
        (what the interval is over).

    Raises:
        SkillSetError: the split is unknown or empty.
        RunError, AdapterError, ConfigError: another run that is missing or does not fit.
    """
    encoded = subject.encoded(subject.split(split, per_skill))
    tokens, groups = answer_tokens(encoded), rows_by_skill(encoded)
    found = {
        (setting, RUN): answer_losses(subject, encoded, setting)
        for setting in fitting_settings(subject, encoded.rows)
    }
    for path in others:
        other = _comparable(subject, path)
        scores = answer_losses(other, encoded, other.trained_gates)
        found[f"{OTHER_RUN}{other.name}", CONTROL] = scores
    losses = np.stack([nll for nll, _ in found.values()])
    exact = np.stack([right for _, right in found.values()])
    rows = []
    for skill, places in groups.items():
        loss, n = losses[:, places], len(places)
        means = loss.sum(1) / tokens[places].sum()
        units = units_of(subset(encoded, places).rows)
        changes = per_token(loss - loss[:1], tokens[places], units)
        columns = (means, *changes, exact[:, places].mean(1))
        rows += [
            (skill, *names, *values, n, units.over)
            for names, *values in zip(found, *(c.tolist() for c in columns), strict=True)
        ]
    return pd.DataFrame(rows, columns=list(SETTING_COLUMNS))


def _comparable(subject: Subject, path: str) -> Subject:
    """Another run with the same template and so the same prompts, so that losses compare."""
    other = beside(subject, path)
    if other.template != subject.template:
        raise ConfigError(
            f"run {other.name!r} was trained with another template, so its losses do not compare"
        )
    return other


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
    if gates.startswith(OTHER_RUN):
        named = {other.name: other for other in (_comparable(subject, path) for path in others)}
        if gates.removeprefix(OTHER_RUN) not in named:
            raise ConfigError(f"gates {gates!r}: no such run among {', '.join(named) or 'none'}")
        asked = named[gates.removeprefix(OTHER_RUN)]
        setting = asked.trained_gates
    part = subset(encoded, groups[skill])
    tokens = answer_tokens(part)
    before = answer_losses(subject, part, "off")[0] / tokens
    after = answer_losses(asked, part, setting)[0] / tokens
    order = np.argsort(before - after, kind="stable")
    half = (most + 1) // 2
    chosen = order if len(order) <= most else np.concatenate([order[:half], order[half - most :]])
    answers = greedy_answers(asked, subset(part, chosen), setting)
    rows = [
        (
            skill,
            gates,
            part.rows[i].prompt,
            part.rows[i].response,
            before[i],
            after[i],
            after[i] - before[i],
            answer,
        )
        for i, answer in zip(chosen, answers, strict=True)
    ]
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
    tokens, loss = answer_tokens(encoded), answer_losses(subject, encoded, start)[0]
    change = losses_without if measure == "A" else switched_losses
    switched = [change(subject, encoded, start, loss, i) for i in range(len(names))]
    before, after = (np.stack(side) for side in zip(*switched, strict=True))
    rows = []
    for skill, places in rows_by_skill(encoded).items():
        units = units_of(subset(encoded, places).rows)
        found = per_token((after - before)[:, places], tokens[places], units)
        reference = before[:, places].sum(1) / tokens[places].sum()
        columns = (found[0], *found[1:], reference, found[0] / reference)
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
        best (nats per answer token), regret, low and high (its 95 % interval), n (prompts), over
        (what the interval is over).

    Raises:
        ConfigError: more than 8 subspaces.
        SkillSetError: the split is unknown or empty.
    """
    encoded = subject.encoded(subject.split(split, per_skill))
    patterns = pattern_table(subject.engine.attachment, subject.adapter, encoded)
    best = best_patterns(patterns).sort_values("row")["nll"].to_numpy(dtype=float)
    own = subject.trained_gates
    fitting = [s for s in fitting_settings(subject, encoded.rows) if not s.startswith("only:")]
    settings = list(dict.fromkeys([own, *fitting]))
    losses = np.stack([answer_losses(subject, encoded, setting)[0] for setting in settings])
    tokens, rows = answer_tokens(encoded), []
    for skill, places in rows_by_skill(encoded).items():
        n_tokens, n = tokens[places], len(places)
        means = losses[:, places].sum(1) / n_tokens.sum()
        lowest = float(best[places].sum() / n_tokens.sum())
        units = units_of(subset(encoded, places).rows)
        found = per_token(losses[:, places] - best[places], n_tokens, units)
        rows += [
            (
                skill,
                setting,
                RUN if setting == own else CONTROL,
                mean,
                lowest,
                *values,
                n,
                units.over,
            )
            for setting, mean, *values in zip(
                settings, means.tolist(), *(x.tolist() for x in found), strict=True
            )
        ]
    return pd.DataFrame(rows, columns=list(REGRET_COLUMNS))


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
    for each in (subject, *(_comparable(subject, path) for path in others)):
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
