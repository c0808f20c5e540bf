"""Methods side by side: what a comparison of methods found, as means over its seeds.

Every mean has its 95 % interval over the seeds (`seed_intervals`) and their number. A failed or
missing cell is left out of the means and listed in `problems_table`. The sentences are in
`methods.sentences`.
"""

from typing import Any

import pandas as pd

from csreft_core.analysis.methods.folder import MethodTables, read_tables
from csreft_core.analysis.methods.means import (
    first_known,
    groups_of,
    in_order,
    interval_of,
    methods_of,
    scores_by_seed,
    seed_means,
)
from csreft_core.analysis.methods.measures import COSTS, MEASURED
from csreft_core.analysis.statistics.seed_intervals import seed_mean
from csreft_core.comparison.folder import STARTS, UNTRAINED, label_name
from csreft_core.errors import ConfigError

TABLES = ("main", "quality", "interference", "sequential", "cost", "conflict", "problems")
"""The tables of this view, `NAME_table`; the first is what `judge methods` prints by default."""

SINGLE_TESTS = ("test_items", "test_paraphrases", "test_both")
"""What the split `test` joins."""
TWO_SKILLS = "test_two_skills"
GAINED = 0.75
"""Share of the own loss, no unit: with less taken away the skill was not learned in the short run,
and harm over gain says how little was learned rather than how much was harmed."""
LEARNED = 0.5
"""Exact match below which a method has not learned its skills."""


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
        likewise (`methods.comparison`).
        interference_index (no unit, with its ends) is the harm over the gain, both in nats from the
        untrained start, and NaN unless gain_shown: the lower end of the gain is above `GAINED` of
        the loss that there was, that of exact_match above `LEARNED`.
    """
    return summary(read_tables(comparison))


def summary(tables: MethodTables) -> pd.DataFrame:
    """See `main_table`."""
    single = scores_by_seed(tables.scores, SINGLE_TESTS)
    two = scores_by_seed(tables.scores, (TWO_SKILLS,))
    rows = []
    for method in methods_of(tables.cells):
        cells = tables.cells[tables.cells["method"] == method]
        done = cells[cells["state"] == "finished"]
        row: dict[str, Any] = {
            "method": method,
            "name": label_name(method),
            "seeds": len(done),
            "failed": len(cells) - len(done),
        }
        row |= {part: first_known(done[part]) for part in ("subspaces", "router", "total", "share")}
        own = single[single["method"] == method]
        row["n"] = int(own["n"].min()) if len(own) else 0
        for name, values in (
            ("exact_match", own["exact_match"]),
            ("two_skills", two.loc[two["method"] == method, "exact_match"]),
            ("loss", own["loss"]),
            *((name, done[name]) for name in MEASURED),
        ):
            row |= interval_of(name, values) | {f"{name}_seeds": int(values.notna().sum())}
        rows.append(row | _index(done, row["exact_match_low"]))
    return pd.DataFrame(rows)


def _index(done: pd.DataFrame, exact_low: float) -> dict[str, Any]:
    """The interference index of a method's finished cells, where its gain is shown."""
    gained = interval_of("gain", done["gain"] / done["to_gain"])["gain_low"]
    shown = bool(gained > GAINED and exact_low > LEARNED)
    index = done["harm"] / done["gain"] if shown else pd.Series(dtype=float)
    estimate = interval_of("interference_index", index)
    return {"gain_shown": shown} | estimate | {"interference_index_seeds": len(index)}


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
    scores = scores_by_seed(tables.scores, splits)
    if scores.empty:
        known = ", ".join(dict.fromkeys(tables.scores["split"]))
        raise ConfigError(f"split {split!r}: this comparison has test, {known}")
    rows = []
    for method in methods_of(tables.cells):
        own = scores[scores["method"] == method]
        if own.empty:
            continue
        done = tables.cells[
            tables.cells["method"].eq(method) & tables.cells["state"].eq("finished")
        ]
        row = {
            "method": method,
            "name": label_name(method),
            "total": first_known(done["total"]),
            "share": first_known(done["share"]),
        }
        row |= interval_of("exact_match", own["exact_match"]) | interval_of("loss", own["loss"])
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
    for (method, trained, evaluated), part in groups_of(own, ["method", "trained", "evaluated"]):
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
    return in_order(pd.DataFrame(rows, columns=columns))


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
    keys = ["method", "stage", "trained", "evaluated"]
    table = seed_means(tables.sequential, keys, "loss")
    exact = [part["exact_match"].mean() for _, part in groups_of(tables.sequential, keys)]
    table.insert(len(table.columns) - 1, "exact_match", exact)
    return in_order(table)


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
        means = seed_means(done[done[name].notna()], ["method"], name)
        rows += [
            (method, label, name, *mean, unit, seeds)
            for method, label, *mean, seeds in means.itertuples(index=False)
        ]
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
    conflict = read_tables(comparison).conflict
    return in_order(seed_means(conflict, ["method", "first", "second"], "cosine"))


def problems_table(comparison: str) -> pd.DataFrame:
    """The cells that are not finished, with what is known about them.

    Args:
        comparison: Folder of the comparison.

    Returns:
        Columns method, name, seed, state (`failed` or `missing`), message.
    """
    cells = read_tables(comparison).cells
    problems = cells[cells["state"] != "finished"][["method", "seed", "state", "message"]]
    problems.insert(1, "name", [label_name(method) for method in problems["method"]])
    return problems.reset_index(drop=True)
