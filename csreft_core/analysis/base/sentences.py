"""What the tables about a base show, in words."""

import pandas as pd

from csreft_core.base.memory.need import in_gb


def sentence_need(table: pd.DataFrame, what: str) -> str:
    """Whether it fits, by how much, and which part is the largest.

    Args:
        table: `need_table`.
        what: What needs it, at the beginning of a sentence.
    """
    parts = table[table["kind"] == "needed"].set_index("part")["bytes"]
    needed, free = int(parts.sum()), int(table.loc[table["kind"] == "free", "bytes"].iloc[0])
    largest = str(parts.idxmax())
    share = f"the largest part is {largest}, {in_gb(int(parts[largest]))}"
    if needed <= free:
        return f"It fits. {what} needs {in_gb(needed)} of {in_gb(free)} free; {share}."
    return (
        f"It does not fit. {what} needs {in_gb(needed)}, {in_gb(needed - free)} more than the "
        f"{in_gb(free)} that are free; {share}."
    )


def sentence_known(table: pd.DataFrame, precision: str) -> str:
    """How many known bases fit in a number format, and which is the largest of them."""
    rows = table[table["precision"] == precision]
    fits = rows[rows["bytes"] <= rows["free"]]
    text = f"In {precision} the weights of {len(fits)} of {len(rows)} known bases fit"
    if fits.empty:
        return f"{text}."
    largest = fits.sort_values("bytes").iloc[-1]
    return f"{text}; the largest is {largest['base']} with {in_gb(int(largest['bytes']))}."


def sentence_measured(table: pd.DataFrame) -> str:
    """How far the estimate of the weights is from what they take."""
    row = table.iloc[0]
    if row["estimated"] == row["measured"]:
        return f"The estimate was exact: {int(row['measured']):,} bytes of weights."
    return (
        f"The weights take {in_gb(int(row['measured']))}; the estimate was "
        f"{abs(row['error']):.2%} too {'high' if row['error'] > 0 else 'low'}."
    )


def sentence_layers(table: pd.DataFrame, edited: list[int]) -> str:
    """Where the edits go, and how much of the base lies above the first of them."""
    n = len(table)
    if not edited:
        return "No layer is chosen: tick one or more in the table."
    above = n - 1 - min(edited)
    names = ", ".join(map(str, edited))
    return (
        f"Edits at the output of layer{'s' * (len(edited) > 1)} {names} (0 to {n - 1}). "
        f"{above} block{'s' * (above != 1)} lie{'s' * (above == 1)} above the first of them: the "
        "gradient of a training passes through these only."
    )
