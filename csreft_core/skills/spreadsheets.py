"""CSV that a spreadsheet opens without running anything.

Excel and its like take a cell that begins with `=`, `+`, `-`, `@` or a tab for a formula, which can
call programs and addresses. Names, prompts and answers come from outside, so such a text gets an
apostrophe in front, as OWASP advises; a number stays a number. JSON and JSONL keep texts as they
are.
"""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = re.compile(r"\s*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def harmless(text: str) -> str:
    """The text of a cell; what would be run as a formula has an apostrophe in front."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def csv_text(table: "pd.DataFrame") -> str:
    """A table as CSV with `\\n` line ends, its texts and column names as `harmless` gives them."""
    texts = table.select_dtypes(exclude=["number", "bool", "datetime", "datetimetz"]).columns
    safe = table.assign(**{str(name): table[name].map(_cell) for name in texts})
    safe = safe.rename(columns=lambda name: harmless(str(name)))
    return safe.to_csv(index=False, lineterminator="\n")


def _cell(value: Any) -> Any:
    return harmless(value) if isinstance(value, str) else value
