"""Gates of prompts as tidy tables: of one prompt, and of held-out prompts beside their controls.

The controls stand in the same table, in the column `source`: `learned` are the run's own gates
(without a router, those that it was trained with), `oracle` opens the gate of the true skill,
`uniform` gives every gate 1/k, and other runs have their name with what their router reads.
"""

from collections.abc import Sequence

import pandas as pd

from csreft_core.analysis.gates.metrics import gate_skill_nmi, mean_rows, patterns
from csreft_core.analysis.gates.ranges import gate_range
from csreft_core.analysis.gates.score_tables import settings_table, sweep_table
from csreft_core.analysis.gates.sentences import sentence_gate_range, sentence_prompt_gates
from csreft_core.analysis.gates.sources import (
    gate_sources,
    metrics_of,
    router_setting,
)
from csreft_core.analysis.prompt_tokens import prompt_tokens
from csreft_core.analysis.subject import Subject
from csreft_core.errors import ConfigError
from csreft_core.skills.skill_set import skill_name

# What other modules look for under this view's name, beside the tables of this module.
__all__ = [
    "gate_range",
    "gate_skill_nmi",
    "sentence_gate_range",
    "sentence_prompt_gates",
    "settings_table",
    "sweep_table",
]

TABLES = (
    "gates",
    "tokens",
    "distribution",
    "means",
    "patterns",
    "metrics",
    "coactivation",
    "difference",
    "settings",
    "sweep",
)
"""The tables of this view, `NAME_table`; the first is what `inspect` prints by default."""

COLUMNS = ("prompt", "skill", "subspace", "gate")


def gates_table(
    subject: Subject,
    *,
    prompts: Sequence[str] = (),
    split: str = "test",
    per_skill: int | None = None,
    gates: str = "learned",
) -> pd.DataFrame:
    """The gates of prompts, one row for each prompt and subspace.

    Args:
        subject: The opened run.
        prompts: Texts without template; none means the rows of the split.
        split: A split of the run's skill set.
        per_skill: At most so many rows of each skill.
        gates: Gate setting, see `gate_settings`; `oracle` needs prompts whose skill the data knows.

    Returns:
        Columns prompt, skill (two joined by `+`; empty where it is not known), subspace, gate (no
        unit; in [0, 1] after the router; of the last token where the router is per token).

    Raises:
        ConfigError: an empty or too long prompt, or a setting that does not fit.
        SkillSetError: the split is unknown or empty.
    """
    rows = subject.asked(prompts, split, per_skill)
    values = subject.gates(rows, gates)
    records = [
        (row.prompt, "+".join(row.skills), subspace, gate)
        for row, of_row in zip(rows, values.tolist(), strict=True)
        for subspace, gate in zip(subject.adapter.names, of_row, strict=True)
    ]
    return pd.DataFrame(records, columns=list(COLUMNS))


def tokens_table(subject: Subject, *, prompts: Sequence[str]) -> pd.DataFrame:
    """The gates at each token, of a router that decides for each token.

    Args:
        subject: The opened run.
        prompts: Texts without template.

    Returns:
        Columns prompt, position (0-based, without padding), token, kind (`word`, `template` or
        `special`), subspace, gate. No rows where the router decides once for a whole prompt:
        there is nothing to show for a token.

    Raises:
        ConfigError: an empty or too long prompt.
    """
    columns = ["prompt", "position", "token", "kind", "subspace", "gate"]
    router = subject.adapter.spec.router
    if subject.adapter.router is None or router.granularity != "per_token":
        return pd.DataFrame(columns=columns)
    trace = subject.engine.trace(subject.adapter, prompts, template=subject.template)
    assert trace.gates is not None
    records = []
    for prompt, mask, gates in zip(prompts, trace.is_token, trace.gates, strict=True):
        tokens = prompt_tokens(prompt, subject.engine.base.tokenizer, subject.template)
        records += [
            (prompt, position, token.text, token.kind, name, gate)
            for position, (token, of_token) in enumerate(
                zip(tokens, gates[mask].tolist(), strict=True)
            )
            for name, gate in zip(subject.adapter.names, of_token, strict=True)
        ]
    return pd.DataFrame(records, columns=columns)


def difference_table(subject: Subject, *, prompts: Sequence[str]) -> pd.DataFrame:
    """How the gates of a second prompt differ from those of a first.

    Args:
        subject: The opened run.
        prompts: The pinned prompt and the one of now.

    Returns:
        Columns subspace, pinned, now (gates), change (now minus pinned; no unit, in [-1, 1]).

    Raises:
        ConfigError: not two prompts, or an empty or too long one.
    """
    if len(prompts) != 2:
        raise ConfigError(f"expected two prompts, the pinned one and another, got {len(prompts)}")
    rows = subject.asked(prompts)
    setting = router_setting(subject)
    if setting == "oracle" and not subject.has_labels(rows):
        setting = "uniform"
    pinned, now = subject.gates(rows, setting).tolist()
    table = pd.DataFrame({"subspace": subject.adapter.names, "pinned": pinned, "now": now})
    return table.assign(change=table["now"] - table["pinned"])


def distribution_table(
    subject: Subject,
    *,
    split: str = "test",
    per_skill: int | None = None,
    others: Sequence[str] = (),
) -> pd.DataFrame:
    """All gates of held-out prompts, learned and controls.

    Args:
        subject: The opened run.
        split: A split of the run's skill set.
        per_skill: At most so many rows of each skill.
        others: Run folders whose gates stand beside, such as that of a first-token router.

    Returns:
        Columns source, prompt, skill, subspace, gate (no unit, in [0, 1]).

    Raises:
        SkillSetError: the split is unknown or empty.
        RunError, AdapterError: another run cannot be read, or is of another base.
    """
    rows = subject.split(split, per_skill)
    records = [
        (source.name, row.prompt, skill_name(row), name, gate)
        for source in gate_sources(subject, rows, others)
        for row, of_row in zip(rows, source.gates.tolist(), strict=True)
        for name, gate in zip(source.subject.adapter.names, of_row, strict=True)
    ]
    return pd.DataFrame(records, columns=["source", *COLUMNS])


def means_table(
    subject: Subject,
    *,
    split: str = "test",
    per_skill: int | None = None,
    others: Sequence[str] = (),
) -> pd.DataFrame:
    r"""Mean gate $\bar G_{s,i} = E_{x \sim T_s}[\alpha_i]$ of each true skill and subspace.

    Arguments and errors as in `distribution_table`.

    Returns:
        Columns source, skill, subspace, gate, low, high (95 % interval), n (prompts), over
        (what the interval is over).
    """
    rows = subject.split(split, per_skill)
    parts = []
    for source in gate_sources(subject, rows, others):
        means = mean_rows(source.values, rows, source.subject.adapter.names)
        parts.append(means.assign(source=source.name))
    columns = ["source", "skill", "subspace", "gate", "low", "high", "n", "over"]
    return pd.concat(parts, ignore_index=True)[columns]


def patterns_table(
    subject: Subject,
    *,
    split: str = "test",
    per_skill: int | None = None,
    others: Sequence[str] = (),
    threshold: float | None = None,
) -> pd.DataFrame:
    """How often each set of open gates comes with each true skill.

    Arguments and errors as in `distribution_table`.

    Args:
        threshold: A gate above it is open; None is that of each router.

    Returns:
        Columns source, skill, pattern (open gates, such as `french+plural`, or `none`), n
        (prompts; pairs that never come are left out), share (of the skill's prompts).
    """
    rows = subject.split(split, per_skill)
    parts = []
    for source in gate_sources(subject, rows, others):
        opened = source.is_open(threshold)
        pairs = pd.DataFrame(
            {
                "source": source.name,
                "skill": [skill_name(row) for row in rows],
                "pattern": patterns(opened, source.subject.adapter.names),
            }
        )
        parts.append(pairs.value_counts(sort=False).rename("n").reset_index())
    table = pd.concat(parts, ignore_index=True)
    return table.assign(share=table["n"] / table.groupby(["source", "skill"])["n"].transform("sum"))


def metrics_table(
    subject: Subject,
    *,
    split: str = "test",
    per_skill: int | None = None,
    others: Sequence[str] = (),
    threshold: float | None = None,
) -> pd.DataFrame:
    """What the gates tell about the skill, and how they are used; see `gates.metrics`.

    Arguments and errors as in `patterns_table`.

    Returns:
        Columns source, metric, subspace (empty for the whole router), value, low, high (95 %
        interval; NaN for ranges and counts), n (prompts), unit, over (what the interval is over).
        Metrics: variance, range, entropy, open_share of each gate; nmi, matched_accuracy,
        probe_accuracy (share of prompts whose skill a linear probe reads from the soft gates, in
        wordings that it has not seen), usage_balance, mean_entropy, sharpness (mean of
        min(gate, 1 - gate)), active_count, dead_gates,
        always_open_gates of the whole.
    """
    rows = subject.split(split, per_skill)
    parts = [metrics_of(source, rows, threshold) for source in gate_sources(subject, rows, others)]
    return pd.concat(parts, ignore_index=True)


def coactivation_table(
    subject: Subject,
    *,
    split: str = "test",
    per_skill: int | None = None,
    others: Sequence[str] = (),
    threshold: float | None = None,
) -> pd.DataFrame:
    """How often two gates are open together.

    Arguments and errors as in `patterns_table`.

    Returns:
        Columns source, subspace, other, both_open (share of prompts, 0 to 1; on the diagonal how
        often the gate is open), n (prompts).
    """
    rows = subject.split(split, per_skill)
    records = []
    for source in gate_sources(subject, rows, others):
        opened = source.is_open(threshold).astype(float)
        names, both = source.subject.adapter.names, opened.T @ opened / len(rows)
        records += [
            (source.name, a, b, both[i, j], len(rows))
            for i, a in enumerate(names)
            for j, b in enumerate(names)
        ]
    return pd.DataFrame(records, columns=["source", "subspace", "other", "both_open", "n"])
