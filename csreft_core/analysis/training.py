"""Metrics records of a run as tidy tables, sentences about them, and warnings with a remedy.

Works on the records of `metrics.jsonl` alone: no tensors, no files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

STEP_COLUMNS = (
    "step",
    "loss",
    "gate_entropy",
    "orthonormality_error",
    "constraint_error",
    "overlap",
    "grad_norm",
    "lr",
    "router_lr",
    "tokens_per_second",
    "time_left_s",
    "elapsed_s",
)
_LOSS_COLUMNS = ("step", "skill", "split", "loss")
_GATE_COLUMNS = ("step", "skill", "subspace", "split", "gate")
_EVAL_COLUMNS = ("step", "skill", "loss", "exact_match", "n")

Record = dict[str, Any]


def _of_kind(records: Sequence[Record], kind: str) -> list[Record]:
    return [record for record in records if record.get("kind") == kind]


def step_table(records: Sequence[Record]) -> pd.DataFrame:
    """One row for each step record.

    Returns:
        Columns step, loss (nats per answer token, with what the batches had), gate_entropy
        (nats a gate), orthonormality_error and constraint_error (no unit), overlap (0 to 1),
        grad_norm, lr, router_lr, tokens_per_second, time_left_s, elapsed_s. A value that a
        record lacks is NaN.
    """
    rows = [[record.get(name) for name in STEP_COLUMNS] for record in _of_kind(records, "step")]
    return pd.DataFrame(rows, columns=list(STEP_COLUMNS)).apply(pd.to_numeric)


def loss_table(records: Sequence[Record]) -> pd.DataFrame:
    """Loss of each skill at each step: columns step, skill, split, loss (nats per answer token).

    `split` is `train` (mean over the batches since the record before) or `validation`.
    """
    rows = [
        (record["step"], skill, "train", loss)
        for record in _of_kind(records, "step")
        for skill, loss in record.get("loss_by_skill", {}).items()
    ]
    rows += [
        (record["step"], skill, record.get("split", "validation"), scores["loss"])
        for record in _of_kind(records, "eval")
        for skill, scores in record["skills"].items()
    ]
    # A loss that was not finite is null; a column of nulls alone would be no numbers.
    return pd.DataFrame(rows, columns=list(_LOSS_COLUMNS)).astype({"loss": float})


def gate_curve_table(records: Sequence[Record], split: str = "validation") -> pd.DataFrame:
    """Mean gates over the prompts of each true skill.

    Args:
        records: Metrics records.
        split: `validation` (from evaluations) or `train` (from the batches).

    Returns:
        Columns step, skill, subspace, split, gate (no unit).
    """
    kind = "eval" if split == "validation" else "step"
    rows = [
        (record["step"], skill, subspace, split, gate)
        for record in _of_kind(records, kind)
        for skill, gates in (record.get("gates_by_skill") or {}).items()
        for subspace, gate in gates.items()
    ]
    return pd.DataFrame(rows, columns=list(_GATE_COLUMNS)).astype({"gate": float})


def eval_table(records: Sequence[Record]) -> pd.DataFrame:
    """Scores of every evaluation, one row for each step and skill.

    Returns:
        Columns step, skill, loss (nats per answer token), exact_match (0 to 1), n (prompts).
    """
    rows = [
        (record["step"], skill, scores["loss"], scores["exact_match"], scores["n"])
        for record in _of_kind(records, "eval")
        for skill, scores in record["skills"].items()
    ]
    return pd.DataFrame(rows, columns=list(_EVAL_COLUMNS)).astype(
        {"loss": float, "exact_match": float}
    )


def last_scores(records: Sequence[Record]) -> pd.DataFrame:
    """The rows of `eval_table` at its last step."""
    table = eval_table(records)
    return table if table.empty else table[table["step"] == table["step"].max()]


def mean_curve(records: Sequence[Record]) -> pd.DataFrame:
    """Plain means over the skills at each evaluation: columns step, loss, exact_match."""
    table = eval_table(records)
    return table.groupby("step", as_index=False)[["loss", "exact_match"]].mean()


def sentence_loss(records: Sequence[Record]) -> str:
    """How far each skill's validation loss has come."""
    table = eval_table(records)
    if table.empty:
        return "No evaluation yet."
    first, last = table["step"].min(), table["step"].max()
    ends = table[table["step"] == last].set_index("skill")["loss"]
    if first == last:
        return f"At step {last} the mean validation loss is {ends.mean():.3f} nats a token."
    if ends.isna().all():
        return f"At step {last} no skill has a finite validation loss."
    starts = table[table["step"] == first].set_index("skill")["loss"]
    worst = ends.idxmax()
    return (
        f"From step {first} to {last} the mean validation loss went from {starts.mean():.3f} to "
        f"{ends.mean():.3f} nats a token; {worst} is highest with {ends[worst]:.3f}."
    )


def sentence_gates(records: Sequence[Record]) -> str:
    """Whether each skill's own gate is the largest on its prompts, at the last evaluation."""
    table = gate_curve_table(records)
    if table.empty:
        return "No gates yet."
    last = table[table["step"] == table["step"].max()]
    matrix = last.pivot(index="skill", columns="subspace", values="gate")
    if len(matrix.columns) == 1:
        return "One subspace for all skills: there is nothing to tell apart."
    spread = (matrix.max() - matrix.min()).max()
    if spread < 0.01:
        return (
            "The gates do not tell the skills apart: between skills, no mean gate differs by more "
            f"than {spread:.1g}."
        )
    own = [skill for skill in matrix.index if skill in matrix.columns]
    if not own:
        return f"Between skills, a mean gate differs by up to {spread:.2f}."
    right = [skill for skill in own if matrix.loc[skill].idxmax() == skill]
    return (
        f"On the prompts of {len(right)} of {len(own)} skills the skill's own gate is the largest; "
        f"between skills, a mean gate differs by up to {spread:.2f}."
    )


def sentence_entropy(records: Sequence[Record]) -> str:
    """The last gate entropy, next to that of gates at one half."""
    entropy = step_table(records)["gate_entropy"].dropna()
    if entropy.empty:
        return "No gates yet."
    value = entropy.iloc[-1]
    return (
        f"The gate entropy is {value:.3f} nats; gates at one half would have 0.693, at 0 or 1, 0."
    )


def sentence_constraint(records: Sequence[Record]) -> str:
    """The largest error at any step so far, and the last overlap."""
    table = step_table(records)
    if table.empty:
        return "No records yet."
    error = table["orthonormality_error"].max()
    overlap = table["overlap"].dropna()
    text = f"The orthonormality error was never above {error:.1e}"
    if overlap.empty:
        return f"{text}; with one subspace there is no overlap."
    return f"{text}; the mean overlap of two subspaces is {overlap.iloc[-1]:.2g}."


def sentence_exact_match(records: Sequence[Record]) -> str:
    """Share of right answers at the last evaluation."""
    table = last_scores(records)
    if table.empty:
        return "No evaluation yet."
    scores = table.set_index("skill")["exact_match"].dropna()
    if scores.empty:
        return "The last evaluation has no share of right answers."
    n, worst = int(table["n"].sum()), str(scores.idxmin())
    return (
        f"{scores.mean():.1%} of the answers are right on the mean over {len(scores)} skills "
        f"(validation, {n} prompts); {worst} is lowest with {scores[worst]:.1%}."
    )


@dataclass(frozen=True)
class Alert:
    """Something that looks wrong in a run, and what to try."""

    text: str
    remedy: str


def alerts(records: Sequence[Record], *, learned_gates: bool = True) -> list[Alert]:
    """What looks wrong so far: loss not finite or risen, no progress, gates that have collapsed.

    Args:
        records: Metrics records.
        learned_gates: Whether a router decides; fixed gates cannot collapse.
    """
    checks = [_not_finite(records), _rise(records) or _plateau(records)]
    if learned_gates:
        checks.append(_collapse(records))
    return [alert for alert in checks if alert is not None]


def _not_finite(records: Sequence[Record]) -> Alert | None:
    table = step_table(records)
    bad = table[~table["loss"].between(-1e30, 1e30) | ~table["grad_norm"].between(0, 1e30)]
    if bad.empty:
        return None
    return Alert(
        f"The loss or the gradient is not finite at step {int(bad['step'].iloc[0])}.",
        "Lower train.lr and train.router_lr, or set base.precision to fp32, and train again.",
    )


def _rise(records: Sequence[Record]) -> Alert | None:
    """The last loss is far above the lowest one: by more than half of what had been gained."""
    loss = mean_curve(records)["loss"]
    if len(loss) < 3 or loss.iloc[-1] - loss.min() < max(0.1, (loss.iloc[0] - loss.min()) / 2):
        return None
    return Alert(
        f"The validation loss rose again, from {loss.min():.3f} to {loss.iloc[-1]:.3f} nats.",
        "Lower train.lr and train.router_lr, or train for fewer steps.",
    )


def _plateau(records: Sequence[Record]) -> Alert | None:
    """No gain of 1 % in the last half of at least six evaluations, while answers are wrong."""
    table = mean_curve(records)
    if len(table) < 6:
        return None
    half = table.iloc[len(table) // 2 :]
    best_before = table["loss"].iloc[: len(table) // 2].min()
    if half["loss"].min() < 0.99 * best_before or table["exact_match"].iloc[-1] > 0.9:
        return None
    return Alert(
        f"The validation loss has not fallen since step {int(half['step'].iloc[0])}.",
        "Try a higher train.lr, a higher adapter.rank, or another layer.",
    )


def _collapse(records: Sequence[Record]) -> Alert | None:
    table = gate_curve_table(records)
    if table.empty or table["subspace"].nunique() < 2 or table["step"].nunique() < 3:
        return None
    last = table[table["step"] == table["step"].max()]
    by_subspace = last.groupby("subspace", sort=False)["gate"]
    if (by_subspace.max() - by_subspace.min()).max() >= 0.01 or last["skill"].nunique() < 2:
        return None
    return Alert(
        "The gates are the same for all skills: the router does not read the prompt.",
        "Use router.input mean_prompt, or give router.supervision a weight such as 1.",
    )
