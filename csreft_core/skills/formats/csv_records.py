"""Records of a CSV file: which letter separates its cells, its columns, its rows.

A separator is found in the first line, never guessed from the texts.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator

from csreft_core.errors import SkillSetError
from csreft_core.skills.formats.column_mapping import text_pair
from csreft_core.skills.formats.records import Record, short_text
from csreft_core.skills.names import fold

_SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
_SEP_LINE = re.compile(r'"?sep=(.)"?[ ;,\t]*(\r\n|\r|\n|$)', re.IGNORECASE)


def csv_records(text: str, source: str, *, header: bool = True) -> Iterator[Record]:
    """The rows below the first line, one after the other; rows without any text are left out.

    Args:
        text: The content of the file.
        source: Its name, for messages.
        header: Whether the first line names the columns; else they are `column 1` and so on.

    Raises:
        SkillSetError: what is no CSV, or a row that does not fit the columns; names the line.
    """
    sep_line = _SEP_LINE.match(text)
    body, n_skipped = (text[sep_line.end() :], 1) if sep_line else (text, 0)
    separator = sep_line[1] if sep_line else _separator(body, source)
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=separator, strict=True)
    names: list[str] | None = None
    line = n_skipped + 1
    try:
        for cells in reader:
            where, line = f"{source}:{line}", n_skipped + reader.line_num + 1
            has_text = any(cell.strip() for cell in cells)
            if not has_text and (names is not None or len(cells) < 2):
                continue
            if names is None:
                names = _columns(cells, where, header=header)
                if header:
                    continue
            yield Record(where, _row_of_cells(names, cells, where, separator), "cells")
    except csv.Error as error:
        raise SkillSetError(
            f"{source}:{n_skipped + reader.line_num}: is not CSV ({error}); mend the line, or give "
            "JSONL"
        ) from None


def _separator(text: str, source: str) -> str:
    """The letter that parts the first line; of several the one that gives known columns."""
    first = {letter: _first_row(text, letter) for letter in _SEPARATORS}
    several = [letter for letter, names in first.items() if len(names) > 1]
    if len(several) < 2:
        return several[0] if several else ","
    readable = [letter for letter in several if text_pair(map(fold, first[letter]))]
    if len(readable) != 1:
        what = " and ".join(_SEPARATORS[letter] for letter in several)
        raise SkillSetError(
            f"{source}:1: cannot tell what separates the columns, the first line has {what}; put "
            "a line such as sep=; before it, or quotes around the names"
        )
    return readable[0]


def _first_row(text: str, separator: str) -> list[str]:
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        return next((cells for cells in rows if cells), [])
    except csv.Error:
        return []  # the reader of all rows names the line


def _columns(names: list[str], where: str, *, header: bool) -> list[str]:
    """The columns' names; a nameless one gets its number, so that what it holds is not lost."""
    numbers = [f"column {i}" for i in range(1, len(names) + 1)]
    if not header:
        return numbers
    if not any(name.strip() for name in names):
        raise SkillSetError(f"{where}: the first line has a column without a name; name them")
    columns = [name if name.strip() else place for name, place in zip(names, numbers, strict=True)]
    twice = next((name for name, n in Counter(columns).items() if n > 1), None)
    if twice is not None:
        raise SkillSetError(
            f"{where}: the first line has two columns named {short_text(twice)}; give "
            "each its own name"
        )
    return columns


def _row_of_cells(names: list[str], cells: list[str], where: str, separator: str) -> dict[str, str]:
    while len(cells) > len(names) and not cells[-1].strip():
        cells = cells[:-1]
    if len(cells) != len(names):
        raise SkillSetError(
            f"{where}: expected {len(names)} cells as in the first line, got {len(cells)}; put "
            f"quotes around a text that has {_SEPARATORS.get(separator, repr(separator))}"
        )
    return dict(zip(names, cells, strict=True))
