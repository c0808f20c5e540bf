"""How answers look on a terminal."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from csreft_core.skills.skill_set import SkillSet
from csreft_core.skills.spreadsheets import csv_text

if TYPE_CHECKING:
    import pandas as pd


def quiet_libraries() -> None:
    """Keep progress bars and notes of the libraries off stderr: one line there means a mistake."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("accelerate").setLevel(logging.ERROR)


def say_notes(skill_set: SkillSet) -> None:
    """Print what was not used of a skill set, or read in an unusual way, apart from the answer."""
    for note in skill_set.notes:
        print(f"note: {note}", file=sys.stderr)


def after_first(records: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same records, once the first is there: no bar is drawn for what cannot start."""
    return chain([*islice(records, 1)], records)


def rows_text(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with the same keys as an aligned table: text to the left, numbers to the right."""
    if not rows:
        return "(no rows)"
    cells = [[*rows[0]], *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    left = [isinstance(value, str) for value in rows[0].values()]
    lines = (
        "  ".join(
            cell.ljust(width) if is_text else cell.rjust(width)
            for cell, width, is_text in zip(row, widths, left, strict=True)
        ).rstrip()
        for row in cells
    )
    return "\n".join(lines)


def print_table(table: "pd.DataFrame", *, csv: bool, json: bool) -> None:
    """A table as CSV, as JSON rows, or aligned."""
    if csv:
        print(csv_text(table), end="")
    elif json:
        print(table.to_json(orient="records", force_ascii=False, double_precision=15))
    else:
        print(rows_text([{str(k): v for k, v in row.items()} for row in table.to_dict("records")]))


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
