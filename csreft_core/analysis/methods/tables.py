"""Methods side by side: what a comparison of methods found, as means over its seeds.

Every mean has its 95 % interval over the seeds (`seed_intervals`) and their number. A failed or
missing cell is left out of the means and listed in `problems_table`. The sentences are in
`methods.sentences`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from csreft_core.analysis.methods import comparison as compared
from csreft_core.analysis.statistics.seed_intervals import seed_mean
from csreft_core.comparison.folder import STARTS, UNTRAINED, Plan, label_name, open_comparison
from csreft_core.errors import ConfigError
from csreft_core.methods.presets import METHODS

TABLES = ("main", "quality", "interference", "sequential", "cost", "conflict", "problems")
"""The tables of this view, `NAME_table`; the first is what `judge methods` prints by default."""

SINGLE_TESTS = ("test_items", "test_paraphrases", "test_both")
"""What the split `test` joins."""
TWO_SKILLS = "test_two_skills"
COSTS = {"train_s": "s", "peak_bytes": "bytes", "tokens_per_s": "tokens a second"}
"""Column of `cells` -> its unit."""
MEASURED = (
    "harm",
    "harm_exact",
    "joint_harm",
    "joint_harm_exact",
    "gain",
    "gain_exact",
    "forgetting",
    "forgetting_exact",
    "conflict",
    *COSTS,
)
"""Columns of `cells` whose means over the seeds are given."""

_POSSIBLE: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("exact_match", "two_skills", "harm_exact", "joint_harm_exact"), (0.0, 1.0)),
    **dict.fromkeys(("gain_exact", "forgetting_exact"), (-1.0, 1.0)),
}
"""Shares: the interval of their mean ends where they can."""

GAINED = 0.75
"""Share of the own loss, no unit: with less taken away the skill was not learned in the short run,
and harm over gain says how little was learned rather than how much was harmed."""
LEARNED = 0.5
"""Exact match below which a method has not learned its skills."""


@dataclass(frozen=True)
class MethodTables:
    """The tidy tables of a comparison, one row for each cell or each number of a cell.

    Attributes:
        name: Of the comparison.
        cells: method, seed, state, message, subspaces, router, total, share, and what `MEASURED`
            names, among others.
        scores: method, seed, split, skill, loss, exact_match, n.
        interference: method, seed, start, trained, evaluated, change, before, exact_change,
            exact_before, n.
        sequential: method, seed, stage, trained, evaluated, loss, exact_match.
        conflict: method, seed, first, second, cosine.
        total_rank: k r of the methods that edit states in subspaces.
        work: What every method had to do: data, sizes and steps; equal for two comparisons whose
            methods can be held against each other.
        base_fingerprint: Of the base (`base_record`).
    """

    name: str
    cells: pd.DataFrame
    scores: pd.DataFrame
    interference: pd.DataFrame
    sequential: pd.DataFrame
    conflict: pd.DataFrame
    total_rank: dict[str, int]
    work: tuple[Any, ...]
    base_fingerprint: str


def read_tables(comparison: str) -> MethodTables:
    """The tables of a comparison's folder.

    Raises:
        RunError: no comparison there, or a damaged one.
    """
    found = open_comparison(Path(comparison))
    interference = compared.interference(found)
    n_skills = interference["trained"].nunique()
    asked = found.plan()
    edits = {
        label: variant.config.adapter
        for label, variant in asked.variants.items()
        if variant.config.method.name == "csreft"
    }
    return MethodTables(
        found.name,
        compared.cells(found),
        compared.scores(found),
        interference,
        compared.sequential(found),
        compared.conflict(found),
        {label: edit.rank * (edit.n_subspaces or n_skills) for label, edit in edits.items()},
        _work(asked),
        asked.base_fingerprint,
    )


def _work(asked: Plan) -> tuple[Any, ...]:
    first = asked.first
    return (
        first.data,
        first.train.steps,
        first.train.batch_size,
        asked.single_steps,
        asked.sequential_steps,
        asked.per_skill,
        asked.budget,
    )


def main_table(comparison: str) -> pd.DataFrame:
    """All methods with all that was measured, a row for each.

    Args:
        comparison: Folder of the comparison.

    Returns:
        Columns method, name, seeds (finished), failed (cells that are not), subspaces, router,
        total (parameters, of the first finished cell), share (% of the base), n (prompts of each
        seed in the tests), and for each of exact_match (split `test`), two_skills (exact match on
        two-skill prompts), loss (nats per answer token), and what `MEASURED` names: the mean over
        the seeds, NAME_low and NAME_high, and NAME_seeds, on how many it was measured. Harm and
        gain are of training on one skill alone, from the untrained start or, `joint_`, from the
        joint one; in nats per answer token or, `_exact`, in exact match from 0 to 1; forgetting
        likewise (`analysis.comparison`).
        interference_index (no unit, with its ends) is the harm over the gain, both in nats from the
        untrained start, and NaN unless gain_shown: the lower end of the gain is above `GAINED` of
        the loss that there was, that of exact_match above `LEARNED`.
    """
    return summary(read_tables(comparison))


def summary(tables: MethodTables) -> pd.DataFrame:
    """See `main_table`."""
    single = _by_seed(tables.scores, SINGLE_TESTS)
    two = _by_seed(tables.scores, (TWO_SKILLS,))
    rows = []
    for method in _methods(tables.cells):
        cells = tables.cells[tables.cells["method"] == method]
        done = cells[cells["state"] == "finished"]
        row: dict[str, Any] = {
            "method": method,
            "name": label_name(method),
            "seeds": len(done),
            "failed": len(cells) - len(done),
        }
        row |= {part: _first(done[part]) for part in ("subspaces", "router", "total", "share")}
        own = single[single["method"] == method]
        row["n"] = int(own["n"].min()) if len(own) else 0
        for name, values in (
            ("exact_match", own["exact_match"]),
            ("two_skills", two.loc[two["method"] == method, "exact_match"]),
            ("loss", own["loss"]),
            *((name, done[name]) for name in MEASURED),
        ):
            row |= _interval(name, values) | {f"{name}_seeds": int(values.notna().sum())}
        rows.append(row | _index(done, row["exact_match_low"]))
    return pd.DataFrame(rows)


def _index(done: pd.DataFrame, exact_low: float) -> dict[str, Any]:
    """The interference index of a method's finished cells, where its gain is shown."""
    gained = _interval("gain", done["gain"] / done["to_gain"])["gain_low"]
    shown = bool(gained > GAINED and exact_low > LEARNED)
    index = done["harm"] / done["gain"] if shown else pd.Series(dtype=float)
    found = _interval("interference_index", index)
    return {"gain_shown": shown} | found | {"interference_index_seeds": len(index)}


def quality_table(comparison: str, *, split: str = "test") -> pd.DataFrame:
    """Exact match and loss against trained parameters.

    Args:
        comparison: Folder of the comparison.
        split: `test` (the tests of single skills), or a split of the comparison.

    Returns:
        Columns method, name, total (parameters), share (%), exact_match and loss with their _low
        and _high, seeds, n (prompts of each seed).

    Raises:
        ConfigError: the comparison has no such split.
    """
    return quality(read_tables(comparison), split)


def quality(tables: MethodTables, split: str = "test") -> pd.DataFrame:
    """See `quality_table`."""
    splits = SINGLE_TESTS if split == "test" else (split,)
    scores = _by_seed(tables.scores, splits)
    if scores.empty:
        known = ", ".join(dict.fromkeys(tables.scores["split"]))
        raise ConfigError(f"split {split!r}: this comparison has test, {known}")
    rows = []
    for method in _methods(tables.cells):
        own = scores[scores["method"] == method]
        if own.empty:
            continue
        done = tables.cells[
            tables.cells["method"].eq(method) & tables.cells["state"].eq("finished")
        ]
        row = {
            "method": method,
            "name": label_name(method),
            "total": _first(done["total"]),
            "share": _first(done["share"]),
        }
        row |= _interval("exact_match", own["exact_match"]) | _interval("loss", own["loss"])
        rows.append(row | {"seeds": len(own), "n": int(own["n"].min())})
    return pd.DataFrame(rows)


def interference_table(comparison: str, *, start: str = UNTRAINED) -> pd.DataFrame:
    """`I_train` of each method: what training on one skill alone does to every skill.

    Args:
        comparison: Folder of the comparison.
        start: Where it begins: `untrained`, or `joint`, the end of the training on all skills.

    Returns:
        Columns method, name, trained, evaluated, own (the same skill), change (nats per answer
        token, mean over seeds), low, high, lost (exact match, 0 to 1; below 0 it is gained),
        lost_low, lost_high, seeds, n (prompts). What was not measured is NaN, or has no row.

    Raises:
        ConfigError: there is no such start.
    """
    if start not in STARTS:
        raise ConfigError(f"start {start!r}: choose one of {', '.join(STARTS)}")
    return interference(read_tables(comparison), start)


def interference(tables: MethodTables, start: str = UNTRAINED) -> pd.DataFrame:
    """See `interference_table`."""
    rows = []
    own = tables.interference[tables.interference["start"] == start]
    for (method, trained, evaluated), part in _groups(own, ["method", "trained", "evaluated"]):
        change = seed_mean(part["change"].dropna().tolist())
        lost = seed_mean((-part["exact_change"].dropna()).tolist())
        rows.append(
            (
                method,
                label_name(method),
                trained,
                evaluated,
                trained == evaluated,
                change.value,
                change.low,
                change.high,
                lost.value,
                lost.low,
                lost.high,
                len(part),
                int(part["n"].min()),
            )
        )
    columns = [
        "method",
        "name",
        "trained",
        "evaluated",
        "own",
        "change",
        "low",
        "high",
        "lost",
        "lost_low",
        "lost_high",
        "seeds",
        "n",
    ]
    return _in_order(pd.DataFrame(rows, columns=columns))


def sequential_table(comparison: str) -> pd.DataFrame:
    """Loss of every skill while the skills are learned one after the other.

    Args:
        comparison: Folder of the comparison.

    Returns:
        Columns method, name, stage (from 0), trained (the skill of that stage), evaluated, loss
        (nats per answer token, mean over seeds), low, high, exact_match (0 to 1), seeds.
    """
    return sequential(read_tables(comparison))


def sequential(tables: MethodTables) -> pd.DataFrame:
    """See `sequential_table`."""
    rows = []
    keys = ["method", "stage", "trained", "evaluated"]
    for (method, stage, trained, evaluated), part in _groups(tables.sequential, keys):
        mean = seed_mean(part["loss"].tolist())
        rows.append(
            (
                method,
                label_name(method),
                stage,
                trained,
                evaluated,
                mean.value,
                mean.low,
                mean.high,
                part["exact_match"].mean(),
                len(part),
            )
        )
    columns = [
        "method",
        "name",
        "stage",
        "trained",
        "evaluated",
        "loss",
        "low",
        "high",
        "exact_match",
        "seeds",
    ]
    return _in_order(pd.DataFrame(rows, columns=columns))


def cost_table(comparison: str) -> pd.DataFrame:
    """Time of the training, peak memory and speed of generation.

    Args:
        comparison: Folder of the comparison.

    Returns:
        Columns method, name, cost (`train_s`, `peak_bytes`, `tokens_per_s`), value (mean over
        seeds), low, high, unit, seeds. A cost that was not measured has no row.
    """
    return cost(read_tables(comparison))


def cost(tables: MethodTables) -> pd.DataFrame:
    """See `cost_table`."""
    done = tables.cells[tables.cells["state"] == "finished"]
    rows = []
    for name, unit in COSTS.items():
        for (method,), part in _groups(done, ["method"]):
            values = part[name].dropna().tolist()
            if values:
                mean = seed_mean([float(value) for value in values])
                rows.append(
                    (
                        method,
                        label_name(method),
                        name,
                        mean.value,
                        mean.low,
                        mean.high,
                        unit,
                        len(values),
                    )
                )
    columns = ["method", "name", "cost", "value", "low", "high", "unit", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def conflict_table(comparison: str) -> pd.DataFrame:
    """Cosine of the gradients of two skills on the parameters that they share.

    Args:
        comparison: Folder of the comparison.

    Returns:
        Columns method, name, first, second (skills), cosine (-1 to 1, mean over seeds), low, high,
        seeds.
    """
    tables = read_tables(comparison)
    rows = []
    for (method, first, second), part in _groups(tables.conflict, ["method", "first", "second"]):
        mean = seed_mean(part["cosine"].tolist())
        rows.append(
            (method, label_name(method), first, second, mean.value, mean.low, mean.high, len(part))
        )
    columns = ["method", "name", "first", "second", "cosine", "low", "high", "seeds"]
    return _in_order(pd.DataFrame(rows, columns=columns))


def problems_table(comparison: str) -> pd.DataFrame:
    """The cells that are not finished, with what is known about them.

    Args:
        comparison: Folder of the comparison.

    Returns:
        Columns method, name, seed, state (`failed` or `missing`), message.
    """
    cells = read_tables(comparison).cells
    found = cells[cells["state"] != "finished"][["method", "seed", "state", "message"]]
    found.insert(1, "name", [label_name(method) for method in found["method"]])
    return found.reset_index(drop=True)


def _methods(cells: pd.DataFrame) -> list[str]:
    """The methods of a comparison in the order of `METHODS`, then the others."""
    there = list(dict.fromkeys(cells["method"]))
    return [m for m in METHODS if m in there] + [m for m in there if m not in METHODS]


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    places = {method: i for i, method in enumerate(_methods(table))}
    order = table["method"].map(places)
    return (
        table.assign(order=order)
        .sort_values("order", kind="stable", ignore_index=True)
        .drop(columns="order")
    )


def _groups(table: pd.DataFrame, keys: list[str]) -> Any:
    return table.groupby(keys, sort=False, observed=True)


def _by_seed(scores: pd.DataFrame, splits: Sequence[str]) -> pd.DataFrame:
    """Mean over skills and splits of each method and seed; n is the number of prompts."""
    chosen = scores[scores["split"].isin(splits)]
    return chosen.groupby(["method", "seed"], as_index=False, sort=False).agg(
        exact_match=("exact_match", "mean"), loss=("loss", "mean"), n=("n", "sum")
    )


def _interval(name: str, values: pd.Series) -> dict[str, float]:
    found = seed_mean([float(value) for value in values.dropna()])
    low, high = np.clip([found.low, found.high], *_POSSIBLE.get(name, (-np.inf, np.inf)))
    return {name: found.value, f"{name}_low": float(low), f"{name}_high": float(high)}


def _first(values: pd.Series) -> float:
    known = values.dropna()
    return float(known.iloc[0]) if len(known) else float("nan")
