"""Sentences about the tables of `prompt`, computed from the tables only."""

import pandas as pd

from csreft_core.analysis.labels import IN_USE, PATTERN


def sentence_patterns(table: pd.DataFrame) -> str:
    """The best pattern for the answer, and the gates in use beside it."""
    if table.empty:
        return "There are no patterns."
    patterns, used = table[table["kind"] != IN_USE], table[table["kind"] == IN_USE].iloc[0]
    best, base = patterns.nlargest(1, "log_probability").iloc[0], patterns.iloc[0]
    which = "all gates closed" if best["n_open"] == 0 else f"open gates {best['open']}"
    return (
        f"Of {len(patterns)} patterns, {which} give {table['answer'].iloc[0]!r} the highest "
        f"log-probability, {best['log_probability']:.3f} nats; the {used['setting']} gates give "
        f"{used['log_probability']:.3f}, closed gates {base['log_probability']:.3f}."
    )


def sentence_divergence(table: pd.DataFrame) -> str:
    """The pattern that moves the next token furthest from the base."""
    if table.empty:
        return "There are no patterns."
    patterns, used = table[table["kind"] == PATTERN], table[table["kind"] == IN_USE].iloc[0]
    top = patterns.nlargest(1, "kl").iloc[0]
    return (
        f"Open gates {top['open']} move the next token furthest from the base: {top['kl']:.3f} "
        f"nats; the {used['setting']} gates {used['kl']:.3f}."
    )


def sentence_shapley(table: pd.DataFrame) -> str:
    """The gate that adds most to the answer, the one that takes most, and their sum."""
    if table.empty:
        return "There are no gates."
    top, last = table.nlargest(1, "shapley").iloc[0], table.nsmallest(1, "shapley").iloc[0]
    total = float(table["all"].iloc[0] - table["closed"].iloc[0])
    does = "adds most to" if top["shapley"] > 0 else "takes least from"
    text = f"{top['subspace']} {does} the answer's log-probability: {top['shapley']:+.3f} nats"
    if last["shapley"] < 0 and len(table) > 1:
        text += f"; {last['subspace']} takes most: {last['shapley']:+.3f}"
    if len(table) == 1:
        return f"{text}, the whole difference between open and closed."
    return (
        f"{text}. The {len(table)} values sum to {table['shapley'].sum():+.3f}, which is all gates "
        f"open against all closed ({total:+.3f})."
    )


def sentence_interactions(table: pd.DataFrame) -> str:
    """The pair of gates that is furthest from adding up."""
    if table.empty:
        return "There is one gate, so there are no pairs."
    top = table.sort_values("interaction", key=abs).iloc[-1]
    more = "more" if top["interaction"] > 0 else "less"
    return (
        f"{top['first']} and {top['second']} do {more} together than apart: "
        f"{top['interaction']:+.3f} nats, the largest of {len(table)} pairs."
    )


def sentence_tokens(table: pd.DataFrame) -> str:
    """The likeliest token before and after."""
    if table.empty:
        return "There are no tokens."
    before, after = (table.nsmallest(1, c).iloc[0] for c in ("rank_base", "rank_adapter"))
    if before["token"] == after["token"]:
        return (
            f"The likeliest token stays {after['token']!r}: its probability goes from "
            f"{after['p_base']:.3f} to {after['p_adapter']:.3f}."
        )
    return (
        f"The likeliest token changes from {before['token']!r} to {after['token']!r}, which rises "
        f"from rank {after['rank_base']} ({after['p_base']:.3f}) to 1 ({after['p_adapter']:.3f}); "
        f"{before['token']!r} falls to rank {before['rank_adapter']}."
    )
