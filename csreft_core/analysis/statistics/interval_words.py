"""What the 95 % intervals of a table are over, in words, from its column `over`."""

import pandas as pd

SEEDS, ARITHMETIC = "seeds", "arithmetic"
"""What an interval is over: trainings with other seeds; nothing, for exact numbers."""


def interval_unit(table: pd.DataFrame) -> str:
    """What the intervals of a table are over, from its column `over`; empty where it has none."""
    if "over" not in table:
        return ""
    return "; ".join(over for over in dict.fromkeys(table["over"]) if over not in ("", ARITHMETIC))


def over_words(table: pd.DataFrame) -> str:
    """`; 95 % intervals over items and wordings`, to be put behind a number of prompts."""
    unit = interval_unit(table)
    return f"; 95 % intervals over {unit}" if unit else ""
