"""Gates of prompts as tidy tables, what they tell about the skill, and sentences about them."""

from collections.abc import Sequence

import pandas as pd
from sklearn.metrics import normalized_mutual_info_score

from csreft_core.analysis.subject import Subject
from csreft_core.evaluation import check_labels

TABLES = ("gates",)
"""The tables of this view, `NAME_table`; the first is what `inspect` prints by default."""

COLUMNS = ("prompt", "skill", "subspace", "gate")
# float32 gates of equal inputs may differ in the last bits when the batch shape differs.
_SAME = 1e-6


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
    if gates == "oracle":
        check_labels(rows, subject.adapter.names)
    values = subject.engine.gates(
        subject.adapter,
        [row.prompt for row in rows],
        gates,
        template=subject.template,
        skills=[row.skills for row in rows],
    )
    found = [
        (row.prompt, "+".join(row.skills), subspace, gate)
        for row, of_row in zip(rows, values.tolist(), strict=True)
        for subspace, gate in zip(subject.adapter.names, of_row, strict=True)
    ]
    return pd.DataFrame(found, columns=list(COLUMNS))


def gate_range(table: pd.DataFrame) -> pd.DataFrame:
    """How far each gate moves over the prompts.

    Args:
        table: `gates_table` of several prompts.

    Returns:
        Columns subspace, lowest, highest, range (all without unit), in the subspaces' order.
    """
    by_subspace = table.groupby("subspace", sort=False)["gate"]
    result = by_subspace.agg(lowest="min", highest="max").reset_index()
    return result.assign(range=result["highest"] - result["lowest"])


def gate_skill_nmi(table: pd.DataFrame, threshold: float = 0.5) -> float:
    """Normalised mutual information of the set of open gates and the true skill.

    Args:
        table: `gates_table` with skills.
        threshold: A gate above it is open.

    Returns:
        0 (the open gates tell nothing about the skill) to 1 (they tell it).
    """
    copy = table.groupby(["prompt", "skill", "subspace"], sort=False).cumcount()
    opened = table.assign(is_open=table["gate"] > threshold, copy=copy)
    patterns = opened.groupby(["prompt", "skill", "copy"], sort=False)["is_open"].agg(tuple)
    skills = patterns.index.get_level_values("skill")
    return float(normalized_mutual_info_score(list(skills), [str(p) for p in patterns]))


def sentence_prompt_gates(table: pd.DataFrame, threshold: float = 0.5) -> str:
    """What the gates of one prompt say.

    Args:
        table: `gates_table` of one prompt.
        threshold: A gate above it is open.
    """
    if table.empty:
        return "This adapter has no gates."
    gates = table.set_index("subspace")["gate"]
    top = str(gates.idxmax())
    opened = list(gates[gates > threshold].index)
    if not opened:
        return f"No gate is open: the largest, {top}, is {gates[top]:.3f}."
    if len(opened) == 1:
        others = gates.drop(top)
        rest = f"; every other gate is {_at_most(others.max())}" if len(others) else ""
        return f"The router opens {top} ({gates[top]:.3f}){rest}."
    if len(opened) == len(gates):
        return f"All {len(gates)} gates are open; the largest is {top} ({gates[top]:.3f})."
    return f"The router opens {_listed(opened)}; the largest gate is {top} ({gates[top]:.3f})."


def sentence_gate_range(table: pd.DataFrame) -> str:
    """Whether the gates depend on the prompt, from `gates_table` of several prompts."""
    if table.empty:
        return "There are no gates to compare."
    ranges = gate_range(table).set_index("subspace")["range"]
    n = table["prompt"].nunique()
    top = str(ranges.idxmax())
    if ranges[top] <= _SAME:
        return (
            f"The gates ignore the prompt: over {n} prompts, max - min of every gate is "
            f"{f'at most {ranges[top]:.1g}' if ranges[top] else 'exactly 0'}."
        )
    low = str(ranges.idxmin())
    return (
        f"The gates depend on the prompt: over {n} prompts, max - min is {ranges[top]:.3f} for "
        f"{top} and at least {ranges[low]:.3f} for every gate."
    )


def _at_most(gate: float) -> str:
    return f"at most {gate:.3f}" if gate >= 0.001 else "below 0.001"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
