"""From the bytes of a JSONL, JSON or CSV file to plain records: field name -> value.

What the fields mean is the matter of `skill_formats` and `column_mapping`. Nothing is unpacked and
nothing is run: an archive, a pickle or another binary file is refused by its first bytes.
"""

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from csreft_core.errors import SkillSetError

SUFFIXES = (".jsonl", ".json", ".csv")
MAX_LINE_BYTES = 1_000_000
# A cell that begins with a bracket is JSON (skills, messages), but not in these columns.
TEXT_FIELDS = ("prompt", "response", "instruction", "input", "output")

_UTF16_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BINARY = {
    b"PK\x03\x04": "a zip archive or an Excel file",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x28\xb5\x2f\xfd": "a zstandard archive",
    b"PAR1": "a parquet file",
    b"%PDF": "a PDF document",
    **{b"\x80" + bytes([protocol]): "a Python pickle" for protocol in range(2, 6)},
}
_SHOWN_NAMES = 8


class Record(NamedTuple):
    """One record of a file.

    Attributes:
        where: `FILE:LINE`, or `FILE: item N` in a JSON array.
        fields: Its values by name.
    """

    where: str
    fields: dict[str, Any]


def read_records(data: bytes, source: str, suffix: str) -> Iterator[Record]:
    """The records of a file, one after the other.

    Args:
        data: Its content.
        source: Its name, for messages.
        suffix: One of `SUFFIXES`.

    Raises:
        SkillSetError: the content is not text of that form; names the line.
    """
    text = _decoded(data, source)
    return _csv_records(text, source) if suffix == ".csv" else _json_records(text, source, suffix)


def _decoded(data: bytes, source: str) -> str:
    for magic, kind in _BINARY.items():
        if data.startswith(magic):
            raise SkillSetError(f"{source}: is {kind}, not text; give JSONL, JSON or CSV as it is")
    if data.startswith(_UTF16_32):
        raise SkillSetError(f"{source}: is UTF-16 or UTF-32 text; save it as UTF-8")
    if b"\0" in data:
        line = data[: data.index(b"\0")].count(b"\n") + 1
        raise SkillSetError(f"{source}:{line}: has a NUL byte; save the file as UTF-8 text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SkillSetError(f"{source}:{line}: is not UTF-8 text; save the file as UTF-8") from None
    if not text.strip():
        raise SkillSetError(f"{source}: is empty; each row needs a prompt and a response")
    return text


def _json_records(text: str, source: str, suffix: str) -> Iterator[Record]:
    if suffix == ".json" and text.lstrip().startswith("["):
        for i, record in enumerate(_parse(text, source, whole_file=True), start=1):
            where = f"{source}: item {i}"
            yield Record(where, _an_object(record, where))
        return
    for i, line in enumerate(text.split("\n"), start=1):
        where = f"{source}:{i}"
        if len(line) > MAX_LINE_BYTES or len(line.encode()) > MAX_LINE_BYTES:
            raise SkillSetError(f"{where}: the line is longer than 1 MB; split or shorten it")
        if line.strip():
            yield Record(where, _an_object(_parse(line, where), where))


class _NoJsonValueError(Exception):
    """What Python would read without a word: NaN, an infinity, or a name that stands twice."""


def _refuse(name: str) -> NoReturn:
    raise _NoJsonValueError(f"{name} is no JSON value; write a text instead")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        name = next(name for name, n in Counter(name for name, _ in pairs).items() if n > 1)
        raise _NoJsonValueError(f"the field {shown(name)} stands twice; keep one of the two")
    return found


def _parse(text: str, where: str, *, whole_file: bool = False) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
    except _NoJsonValueError as error:
        raise SkillSetError(f"{where}: {error}") from None
    except RecursionError:
        raise SkillSetError(
            f"{where}: is nested too deeply; write one flat object a line"
        ) from None
    except json.JSONDecodeError as error:
        line = f":{error.lineno}" if whole_file else ""
        raise SkillSetError(
            f"{where}{line}: is not JSON ({error.msg} at column {error.colno}); write one object "
            'a line, such as {"skill": "plural", "prompt": "...", "response": "..."}'
        ) from None
    except ValueError:  # a number with more digits than Python converts
        raise SkillSetError(f"{where}: has a number that is too long; write it as a text") from None


def _an_object(record: Any, where: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise SkillSetError(f"{where}: expected a JSON object, got {shown(record)}")
    return record


def _csv_records(text: str, source: str) -> Iterator[Record]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        _check_header(reader.fieldnames or (), f"{source}:{reader.line_num}")
        for record in reader:
            where = f"{source}:{reader.line_num}"
            if None in record or None in record.values():
                raise SkillSetError(
                    f"{where}: expected {len(reader.fieldnames or ())} cells as in the first "
                    "line; put quotes around a text that has a comma"
                )
            cells = {name: cell(name, value, where) for name, value in record.items()}
            yield Record(where, cells)
    except csv.Error as error:
        raise SkillSetError(
            f"{source}:{reader.line_num}: is not CSV ({error}); mend the line, or give JSONL"
        ) from None


def _check_header(names: Iterable[str], where: str) -> None:
    """A column without a name, or two with one name, would lose a text without a word."""
    for name, n in Counter(names).items():
        if not name.strip() or n > 1:
            what = f"two columns named {shown(name)}" if name.strip() else "a column without a name"
            raise SkillSetError(f"{where}: the first line has {what}; give each its own name")


def cell(name: str, value: str, where: str) -> Any:
    """The value of a cell of a table of texts.

    An empty cell of an optional column means none; lists (skills, messages) are JSON.

    Raises:
        SkillSetError: a list that is not JSON.
    """
    if value.lstrip().startswith("[") and name not in TEXT_FIELDS:
        return _parse(value, where)
    return value if value or name in TEXT_FIELDS else None


def suffix_of(name: str) -> str:
    """The ending of a file's name, in small letters.

    Raises:
        SkillSetError: none of `SUFFIXES`.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise SkillSetError(f"{name}: expected a file that ends in {', '.join(SUFFIXES)}")
    return suffix


def shown(value: Any) -> str:
    """A value as short and plain text for a message."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def listed(names: Iterable[str]) -> str:
    """The first field names, for a message."""
    found = list(names)
    more = f" and {len(found) - _SHOWN_NAMES} more" if len(found) > _SHOWN_NAMES else ""
    plain = (name if name.isprintable() and len(name) <= 40 else shown(name)
             for name in found[:_SHOWN_NAMES])  # fmt: skip
    return (", ".join(plain) or "no field") + more
