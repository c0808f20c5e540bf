"""Sentences of the Claims page, each computed from its table."""

import pandas as pd

from csreft_core.analysis.claims.parameters import PAPER_SHARE
from csreft_core.analysis.claims.rules import VERDICTS
from csreft_core.analysis.statistics.interval_words import ARITHMETIC


def sentence_verdicts(table: pd.DataFrame) -> str:
    """How many claims hold, and which do not.

    Args:
        table: `verdicts_table`.
    """
    parts = []
    for verdict in VERDICTS:
        names = table.loc[table["verdict"] == verdict, "claim"].tolist()
        if names:
            verb = "is" if len(names) == 1 else "are"
            parts.append(f"{len(names)} {verb} “{verdict}” ({', '.join(names)})")
    return f"Of {len(table)} claims, " + "; ".join(parts) + "."


def sentence_condition(row: pd.Series) -> str:
    """One condition with its figures, for a row of `conditions_table`."""
    if row["seeds"] == 0 and not row["over"]:
        return f"{row['condition']}: not measured. Needed: {row['rule']}."
    unit = f" {row['unit']}" if row["unit"] else ""
    interval = "" if row["low"] == row["high"] else f" [{row['low']:.4g}, {row['high']:.4g}]"
    control = "" if pd.isna(row["control_value"]) else f", control {row['control_value']:.4g}"
    return (
        f"{row['condition']}: {row['value']:.4g}{interval}{unit}{control}; needed: {row['rule']}: "
        f"{row['finding'] or 'too few seeds to judge'} ({behind(row)})."
    )


def behind(row: pd.Series) -> str:
    """What the numbers of a condition rest on: prompts, seeds, and what the interval is over."""
    if row["over"] == ARITHMETIC:
        return "arithmetic, no interval"
    seeds = f"{row['seeds']} seed{'' if row['seeds'] == 1 else 's'}"
    prompts = f"{row['n']} prompt{'' if row['n'] == 1 else 's'}"
    return f"n = {prompts}, {seeds}, interval over {row['over']}"


def sentence_memory(table: pd.DataFrame) -> str:
    """How much of the longest text comes back, beside its controls.

    Args:
        table: `shares_table` of `memorisation`.
    """
    part = table[table["layer"] == table["layer"].iloc[0]]
    longest = part[part["tokens"] == part["tokens"].max()].set_index("kind")["share"]
    n = int(table["parameters"].iloc[0])
    return (
        f"One vector of {n} parameters at layer {table['layer'].iloc[0]} gives back "
        f"{longest['text']:.0%} of a text of {part['tokens'].max()} tokens, "
        f"{longest['scrambled']:.0%} of its words in random order and {longest['random']:.0%} of "
        "random words."
    )


def sentence_parameters(table: pd.DataFrame) -> str:
    """What the router's part is, and what that is against LoRA.

    Args:
        table: `calculator_table`.
    """
    own = table[table["method"] == "CS-ReFT"].set_index("part")["parameters"]
    total = int(own.sum())
    lora = int(table.loc[table["method"] == "LoRA of the paper", "parameters"].iloc[0])
    share = float(table.loc[table["method"] == "CS-ReFT", "share"].sum())
    times = lora / total
    against = f"{times:.1f} times fewer than LoRA" if times >= 1 else f"{1 / times:.2f} times LoRA"
    return (
        f"Together {total:,} parameters, {share:.4f} % of the base: {against} ({lora:,}). The "
        f"router is {own['router'] / total:.1%} of them."
    )


def sentence_inversion(table: pd.DataFrame) -> str:
    """Which readings print the paper's share.

    Args:
        table: `inversion_table`.
    """
    low, high = int(table["total"].iloc[0]), int(table["total"].iloc[1])
    rows = table.iloc[2:]
    prints = rows[rows["prints"] == PAPER_SHARE]
    possible = prints[prints["possible"].fillna(False)]
    whole = table.iloc[-1]
    return (
        f"{PAPER_SHARE} % needs {low:,} to {high:,} parameters. {len(prints)} of {len(rows)} "
        f"readings lie there, {len(possible)} of them can be had with four subspaces: "
        f"{'; '.join(possible['reading'])}. With the router that section 4 describes the total is "
        f"{int(whole['total']):,}, {whole['prints']} %."
    )


def sentence_results(table: pd.DataFrame) -> str:
    """How many numbers of a paper's table were measured by its authors.

    Args:
        table: `results_table`.
    """
    copied = table["origin"].str.contains("copied")
    return (
        f"{len(table)} numbers from {table['printed_in'].iloc[0]}, in {table['unit'].iloc[0]}: "
        f"{int(copied.sum())} of them copied from other papers."
    )
