"""Who helps or hurts whom: losses of every skill under every gate setting, as tidy tables.

A change of loss is in nats per answer token; below 0 helps, above 0 hurts. Intervals are paired,
over what the column `over` says, see `intervals`. The sentences are in `interference.sentences`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from csreft_core.analysis.interference.composition import best_patterns, pattern_table
from csreft_core.analysis.interference.pair_tables import (
    MEASURES,
    OVERLAP_COLUMNS,
    PAIR_COLUMNS,
    SINGLE_COLUMNS,
    overlap_table,
    pairs_table,
    single_skill_table,
)
from csreft_core.analysis.interference.pairs import (
    comparable,
)
from csreft_core.analysis.labels import CONTROL, OTHER_RUN, RUN
from csreft_core.analysis.losses import (
    answer_losses,
    answer_tokens,
    fitting_settings,
    greedy_answers,
    losses_under,
    per_token,
    rows_by_skill,
    subset,
)
from csreft_core.analysis.statistics.intervals import units_of
from csreft_core.analysis.subject import Subject
from csreft_core.errors import ConfigError

# Tables of this view in another module, and their columns.
__all__ = [
    "MEASURES",
    "OVERLAP_COLUMNS",
    "PAIR_COLUMNS",
    "SINGLE_COLUMNS",
    "overlap_table",
    "pairs_table",
    "single_skill_table",
]

TABLES = ("settings", "examples", "pairs", "regret", "overlap", "single_skill")
"""The tables of this view, `NAME_table`; the first is what `inspect` prints by default."""

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
REGRET_COLUMNS = ("skill", "setting", "kind", "loss", "best", "regret", "low", "high", "n", "over")


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
    settings = fitting_settings(subject, encoded.rows)
    scores_of = {
        (setting, RUN): scores
        for setting, scores in zip(settings, losses_under(subject, encoded, settings), strict=True)
    }
    for path in others:
        other = comparable(subject, path)
        scores = answer_losses(other, encoded, other.trained_gates)
        scores_of[f"{OTHER_RUN}{other.name}", CONTROL] = scores
    losses = np.stack([nll for nll, _ in scores_of.values()])
    exact = np.stack([right for _, right in scores_of.values()])
    rows = []
    for skill, places in groups.items():
        loss, n = losses[:, places], len(places)
        means = loss.sum(1) / tokens[places].sum()
        units = units_of(subset(encoded, places).rows)
        changes = per_token(loss - loss[:1], tokens[places], units)
        columns = (means, *changes, exact[:, places].mean(1))
        rows += [
            (skill, *names, *values, n, units.over)
            for names, *values in zip(scores_of, *(c.tolist() for c in columns), strict=True)
        ]
    return pd.DataFrame(rows, columns=list(SETTING_COLUMNS))


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
        named = {other.name: other for other in (comparable(subject, path) for path in others)}
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
    losses = np.stack([nll for nll, _ in losses_under(subject, encoded, settings)])
    tokens, rows = answer_tokens(encoded), []
    for skill, places in rows_by_skill(encoded).items():
        n_tokens, n = tokens[places], len(places)
        means = losses[:, places].sum(1) / n_tokens.sum()
        lowest = float(best[places].sum() / n_tokens.sum())
        units = units_of(subset(encoded, places).rows)
        regrets = per_token(losses[:, places] - best[places], n_tokens, units)
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
                settings, means.tolist(), *(x.tolist() for x in regrets), strict=True
            )
        ]
    return pd.DataFrame(rows, columns=list(REGRET_COLUMNS))
