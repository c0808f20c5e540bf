"""From records to rows of skills: the one way of the command line and of the pages.

Checks each row by itself and names the file, the line and the field of what is wrong; what was not
used, or read in an unusual way, becomes a note. Splits of rows that have none, and what holds
between rows, are the matter of `skills.splits`.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from csreft_core.errors import SkillSetError
from csreft_core.skills.formats.column_mapping import SPLIT_NAMES, ColumnMapping, usual_mapping
from csreft_core.skills.formats.fields import Fields, decode_list, is_empty, text_of, texts
from csreft_core.skills.formats.files import SUFFIXES, read_file, read_records, suffix_of
from csreft_core.skills.formats.records import Record, name_list, quote, short_text
from csreft_core.skills.names import fold, plain_name

SPLITS = (
    "train",
    "validation",
    "test_items",
    "test_paraphrases",
    "test_both",
    "test_two_skills",
)
_MOST_NOTES = 50


class Row(NamedTuple):
    """One prompt with its response.

    Attributes:
        skills: Names of the skills that it needs; empty if it is unlabelled.
        prompt: The question, without template.
        response: The answer, without white space around it but for the indentation of a first line.
        split: One of `SPLITS`.
        item: What the prompt asks about, such as the noun; empty where the data does not say.
            Nothing is trained on it: intervals are over items and wordings where it is known.
    """

    skills: tuple[str, ...]
    prompt: str
    response: str
    split: str
    item: str = ""

    @property
    def wording(self) -> str:
        """The prompt with `{item}` in the place of its item; empty where the item is not in it."""
        if not self.item:
            return ""
        place = rf"(?<!\w){re.escape(self.item)}(?!\w)"
        wording, n = re.subn(place, "{item}", self.prompt)
        return wording if n else ""


class ReadRow(NamedTuple):
    """A row as it was read; `row.split` is empty where the file gives none.

    Attributes:
        row: The row.
        where: `FILE:LINE`; in a JSON array `FILE:LINE, item N`.
    """

    row: Row
    where: str


class ReadRows(NamedTuple):
    """The rows of a file or folder.

    Attributes:
        rows: In the order of the file.
        notes: What was not used, or read in an unusual way, each with the place of the first.
    """

    rows: list[ReadRow]
    notes: tuple[str, ...] = ()


def read_rows(path: Path, skill_column: str = "skill", *, must_have: bool = True) -> ReadRows:
    """Read a file, or a folder with one file a skill (the file's stem is the skill).

    Args:
        path: A file that ends in one of `SUFFIXES`, or a folder of them.
        skill_column: Name of the field that holds the skill; in a folder a field goes before the
            file's stem.
        must_have: Whether a file without a column of that name is refused; else it is read as if
            none had been named.

    Raises:
        SkillSetError: the file is missing, unreadable or empty, or a row is wrong.
    """
    if not path.is_dir():
        suffix_of(str(path))
        return _read_file(path, skill_column, None, must_have)
    inside = sorted(file for file in path.iterdir() if not file.name.startswith("."))
    files = [file for file in inside if file.is_file() and file.suffix.lower() in SUFFIXES]
    if not files:
        raise SkillSetError(f"{path}: the folder has no {', '.join(SUFFIXES)} file; add one")
    parts = [_read_file(file, skill_column, file.stem, must_have) for file in files]
    others = [file.name for file in inside if file not in files]
    notes = [f"{path}: not read: {name_list(others)}"] * bool(others)
    notes += [note for part in parts for note in part.notes]
    return ReadRows([row for part in parts for row in part.rows], tuple(notes))


def _read_file(path: Path, skill_column: str, stem: str | None, must_have: bool) -> ReadRows:
    records = list(read_records(read_file(path), str(path), path.suffix.lower()))
    columns = columns_of(records)
    mapping = usual_mapping(columns)
    if skill_column != "skill" and (must_have or skill_column in columns):
        if records and skill_column not in columns:
            raise SkillSetError(
                f"{path}: no row has the field {skill_column!r} that data.skill_column names; "
                f"the fields are {name_list(columns)}"
            )
        mapping = replace(mapping, skill=skill_column)
    elif stem is not None and mapping.skill and fold(mapping.skill) not in ("skill", "skills"):
        mapping = replace(mapping, skill=None)
    return as_rows(records, str(path), mapping, stem)


def columns_of(records: Iterable[Record]) -> tuple[str, ...]:
    """The names of all fields of rows, in the order of first appearance."""
    rows = (record.fields for record in records if record.kind != "around")
    return tuple(dict.fromkeys(name for fields in rows for name in fields))


def as_rows(
    records: Sequence[Record], source: str, mapping: ColumnMapping, stem: str | None = None
) -> ReadRows:
    """Records as rows.

    Args:
        records: What was read.
        source: Name of the file, for messages.
        mapping: Where the parts of a row stand, see `usual_mapping`.
        stem: The skill of records that name none.

    Raises:
        SkillSetError: there are none, one is wrong, or a half of the mapping is missing.
    """
    if (mapping.prompt is None) != (mapping.response is None):
        raise SkillSetError("choose a column for the prompt and one for the response")
    rows, notes = [], _Notes()
    for record in records:
        if record.kind == "around":
            names = [name for name, value in record.fields.items() if value]
            if names:
                what = f"around the rows stand fields that are not used: {name_list(names, 30)}"
                notes.add(what, record.where)
            continue
        rows.append(ReadRow(_row(record, mapping, stem, notes), record.where))
    if not rows:
        raise SkillSetError(f"{source}: has no rows; each needs a prompt and a response")
    if mapping.skill is not None and fold(mapping.skill) not in ("skill", "skills"):
        notes.add(f"the field {quote(mapping.skill)} is read as the skill", source)
    return ReadRows(rows, notes.lines())


class _Notes:
    """Remarks on records; equal ones are counted, with the place of the first."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[str, int]] = {}

    def add(self, what: str, where: str) -> None:
        first, n = self._places.get(what, (where, 0))
        self._places[what] = (first, n + 1)

    def lines(self) -> tuple[str, ...]:
        """One line each; of very many the first ones and how many more there are."""
        lines = [
            f"{where}: {what}" + (f" (and {n - 1:,} more)" if n > 1 else "")
            for what, (where, n) in list(self._places.items())[:_MOST_NOTES]
        ]
        more = len(self._places) - len(lines)
        return (*lines, *([f"and {more:,} more notes of this kind"] if more > 0 else []))


def _row(record: Record, mapping: ColumnMapping, stem: str | None, notes: _Notes) -> Row:
    item, elsewhere = _item(record, mapping), _elsewhere(record, mapping)
    elsewhere += [name for name in record.fields if item and fold(name) == "item"]
    fields = Fields(record, lambda what: notes.add(what, record.where), elsewhere)
    if mapping.prompt is not None and mapping.response is not None:
        prompt, response = _texts_of_mapping(
            fields, mapping.prompt, mapping.response, mapping.input
        )
    else:
        prompt, response = texts(fields)
    fields.say_unused()
    value = mapping.one_skill or (record.fields.get(mapping.skill) if mapping.skill else None)
    is_cell = record.kind == "cells" and mapping.one_skill is None
    skills = _skills(
        stem if _is_none(value) else value, record.where, mapping.skill or "skill", is_cell
    )
    return Row(skills, prompt, response, _split(record, mapping.split), item)


def _item(record: Record, mapping: ColumnMapping) -> str:
    """What the prompt asks about: the text or number in the field `item`; empty for none."""
    for name, value in record.fields.items():
        is_mapped = name in (mapping.prompt, mapping.response, mapping.input, mapping.skill)
        if (
            fold(name) == "item"
            and isinstance(value, str)
            and not is_empty(value)
            and not is_mapped
        ):
            return text_of(value, name, record.where)
    return ""


def _elsewhere(record: Record, mapping: ColumnMapping) -> list[str]:
    return [name for name in (mapping.skill, mapping.split) if name in record.fields and name]


def _texts_of_mapping(
    fields: Fields, prompt: str, response: str, input_column: str | None
) -> tuple[str, str]:
    """The texts of columns that were chosen by hand."""
    pair = [_text_of_column(fields, column) for column in (prompt, response)]
    if input_column is not None and not is_empty(fields.all.get(input_column)):
        pair[0] = f"{pair[0]}\n{_text_of_column(fields, input_column)}"
    for column in (prompt, response, input_column):
        fields.filled.pop(fold(column or ""), None)
    return pair[0], pair[1]


def _text_of_column(fields: Fields, column: str) -> str:
    if column not in fields.all:
        raise SkillSetError(
            f"{fields.where}: field {quote(column)} is missing; found {name_list(fields.all)}"
        )
    return text_of(fields.all[column], column, fields.where)


def _is_none(value: Any) -> bool:
    return value is None or value == ""


def _skills(value: Any, where: str, field: str, is_cell: bool) -> tuple[str, ...]:
    if value is None:
        return ()
    value = decode_list(value, where) if is_cell else value
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(name, str) for name in values):
        raise SkillSetError(
            f"{where}: field {quote(field)}: expected a skill's name or a list of names, "
            f"got {short_text(value)}"
        )
    names = tuple(plain_name(text_of(name, field, where)) for name in values)
    if not all(names):
        raise SkillSetError(f"{where}: field {quote(field)}: a name has no visible letter")
    if len(set(names)) < len(names):
        raise SkillSetError(
            f"{where}: field {quote(field)}: names a skill twice, {short_text(value)}"
        )
    return names


def _split(record: Record, column: str | None) -> str:
    if column is None:
        return ""
    value = record.fields.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        return ""
    split = SPLIT_NAMES.get(fold(value)) if isinstance(value, str) else None
    if split is None:
        close = difflib.get_close_matches(fold(str(value)), SPLIT_NAMES, 1)
        suggestion = f"did you mean {SPLIT_NAMES[close[0]]!r}? " if close else ""
        raise SkillSetError(
            f"{record.where}: field {quote(column)}: {suggestion}expected a split, one of "
            f"{', '.join(SPLITS)}, got {short_text(value)}"
        )
    return split
