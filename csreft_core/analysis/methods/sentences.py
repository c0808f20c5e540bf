"""Sentences under the figures of the Methods page, each computed from its table."""

from collections.abc import Sequence

import pandas as pd

from csreft_core.analysis.methods.measures import MORE_IS_BETTER
from csreft_core.analysis.methods.tables import GAINED, LEARNED
from csreft_core.methods.presets import OWN

_EXACT = ("harm_exact", "joint_harm_exact", "forgetting_exact")
_HARMS = ("harm", "joint_harm", "forgetting", *_EXACT)

_UNITS = dict.fromkeys(("exact_match", "two_skills", "gain_exact", *_EXACT), ".1%") | {
    "train_s": ".1f",
    "peak_bytes": ".4g",
    "tokens_per_s": ".0f",
}


def sentence_place(table: pd.DataFrame, measure: str) -> str:
    """Which place CS-ReFT has among the methods, and with whom it may share it.

    Args:
        table: `main_table`.
        measure: One of its measures.
    """
    there = table[table[measure].notna()] if len(table) else table
    if there.empty:
        return "No finished cell has this measurement."
    seeds = _range(there[f"{measure}_seeds"])
    best_first = there.sort_values(measure, ascending=MORE_IS_BETTER[measure] is not True)
    best = best_first.iloc[0]
    start = (
        f"Best: {best['name']} with {_value(best, measure)}."
        if MORE_IS_BETTER[measure] is not None
        else f"Lowest: {best['name']} with {_value(best, measure)}."
    )
    if measure in _HARMS:
        start += _little_to_harm(best_first)
    if measure == "interference_index":
        start += _without_index(table)
    elif unknown := _not_measured(table, measure):
        start += f" Not measured yet: {', '.join(unknown)}."
    own = there[there["method"] == OWN]
    if own.empty:
        absent = OWN not in set(table["method"])
        return start if absent else f"{start} CS-ReFT has no finished cell with this measurement."
    place = best_first["method"].tolist().index(OWN) + 1
    row = own.iloc[0]
    others = there[there["method"] != OWN]
    near = others[
        (others[f"{measure}_low"] <= row[f"{measure}_high"])
        & (others[f"{measure}_high"] >= row[f"{measure}_low"])
    ]
    shared = (
        f"; the intervals of {len(near)} others overlap its own"
        if len(near)
        else "; no other interval overlaps its own"
    )
    return (
        f"{start} CS-ReFT is number {place} of {len(there)} with {_value(row, measure)}{shared} "
        f"({seeds} seeds each, 95 % intervals over them)."
    )


def _little_to_harm(table: pd.DataFrame) -> str:
    """What learns little has little to harm with, which a rank does not show."""
    names = table.loc[table["exact_match"] < LEARNED, "name"].tolist()
    if not names:
        return ""
    return (
        f" Under {LEARNED:.0%} right on the tests, so with little to harm by: {', '.join(names)}."
    )


def _not_measured(table: pd.DataFrame, measure: str) -> list[str]:
    """Other methods with finished cells that lack it, such as those of an older version."""
    done = table[(table["seeds"] > 0) & (table["method"] != OWN)]
    return done.loc[done[measure].isna(), "name"].tolist()


def _without_index(table: pd.DataFrame) -> str:
    """Whose index is not given: harm over a gain that is not shown says nothing about harm."""
    done = table[table["seeds"] > 0]
    names = done.loc[~done["gain_shown"].astype(bool), "name"].tolist()
    if not names:
        return ""
    return (
        f" Not given where the own gain is not shown to be above {GAINED:.0%} of the loss or the "
        f"exact match above {LEARNED:.0%}: {', '.join(names)}."
    )


def sentence_quality(table: pd.DataFrame, measure: str) -> str:
    """Whether more parameters go with better answers, over the methods.

    Args:
        table: `quality_table`.
        measure: `exact_match` or `loss`.
    """
    there = table[table["total"].notna() & table[measure].notna()]
    if len(there) < 3:
        return "Too few methods are finished to compare quality with parameters."
    few, many = there.nsmallest(1, "total").iloc[0], there.nlargest(1, "total").iloc[0]
    form = _UNITS.get(measure, ".3f")
    text = (
        f"{few['name']} trains fewest parameters ({few['total']:,.0f}, {few[measure]:{form}}), "
        f"{many['name']} most ({many['total']:,.0f}, {many[measure]:{form}})."
    )
    if min(there["total"].nunique(), there[measure].nunique()) < 2:
        return f"{text} All are alike in one of the two, so there is nothing to rank."
    rho = there["total"].corr(there[measure], method="spearman")
    return (
        f"{text} Rank correlation of parameters and {measure.replace('_', ' ')}: {rho:+.2f} over "
        f"{len(there)} methods."
    )


def sentence_interference(
    table: pd.DataFrame, methods: Sequence[str] | None = None, *, unit: str = "nats"
) -> str:
    """Where training on one skill harms another most, and how many harms are sure.

    Args:
        table: `interference_table`.
        methods: Labels that are drawn; None takes all.
        unit: `nats` a token, or `exact` match.
    """
    value, low, form = (
        ("lost", "lost_low", "+.1%") if unit == "exact" else ("change", "low", "+.3f")
    )
    part = table if methods is None else table[table["method"].isin(list(methods))]
    off = part[~part["own"].astype(bool) & part[value].notna()] if len(part) else part
    if off.empty:
        return "None of these methods has this measurement."
    texts = []
    for _, rows in off.groupby("method", sort=False):
        sure, name = int((rows[low] > 0).sum()), rows["name"].iloc[0]
        texts.append(f"{name} {rows[value].mean():{form}} ({sure} of {len(rows)} surely harmed)")
    worst = off.nlargest(1, value).iloc[0]
    what = (
        "What the other skills lose of their exact match, on average"
        if unit == "exact"
        else "Mean change of the other skills, in nats a token"
    )
    return (
        f"{what}: {', '.join(texts)}. The largest harm: {worst['evaluated']} by {worst['trained']} "
        f"with {worst['name']} ({worst[value]:{form}}); {_range(off['seeds'])} seeds, at least "
        f"{int(off['n'].min())} prompts a cell."
    )


def sentence_sequential(table: pd.DataFrame, methods: Sequence[str] | None = None) -> str:
    """How much the first skill has lost at the end, with each method.

    Args:
        table: `sequential_table`.
        methods: Labels that are drawn; None takes all.
    """
    part = table if methods is None else table[table["method"].isin(list(methods))]
    if part.empty:
        return "None of these methods has this measurement."
    texts, first = [], ""
    for _, rows in part.groupby("method", sort=False):
        first = str(rows.nsmallest(1, "stage")["trained"].iloc[0])
        curve = rows[rows["evaluated"] == first].sort_values("stage")["loss"]
        texts.append(f"{rows['name'].iloc[0]} {curve.iloc[-1] - curve.min():.3f}")
    return (
        f"What {first}, learned first, has lost at the end against its best stage, in nats a "
        f"token: {', '.join(texts)} ({_range(part['seeds'])} seeds)."
    )


def sentence_problems(table: pd.DataFrame) -> str:
    """How many cells are not finished; empty where all are.

    Args:
        table: `problems_table`.
    """
    if table.empty:
        return ""
    names = ", ".join(f"{name} ({n})" for name, n in table["name"].value_counts(sort=False).items())
    return f"Cells that are not finished, left out of the means: {names}."


def _value(row: pd.Series, measure: str) -> str:
    form = _UNITS.get(measure, ".3f")
    value, low, high = (row[f"{measure}{end}"] for end in ("", "_low", "_high"))
    shown = f"{value:{form}}"
    return shown if pd.isna(low) else f"{shown} [{low:{form}}, {high:{form}}]"


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"
