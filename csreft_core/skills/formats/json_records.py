"""Records of a JSON file: an object a line, objects one after the other, an array, or a wrapper.

One scanner reads all of these, whatever the ending of the file's name, so that each record has the
line on which it begins. What Python would read without a word is refused: NaN, an infinity, a name
that stands twice.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn

from csreft_core.errors import SkillSetError
from csreft_core.skills.formats.column_mapping import SPLIT_NAMES, known_form
from csreft_core.skills.formats.records import Number, Record, short_text
from csreft_core.skills.names import fold

MAX_RECORD_BYTES = 1_000_000
# Names under which files keep their rows; a name of a split gives it to its rows.
_WRAPPERS = ("data", "rows", "examples", "instances", "records", "items")
_SPACE = re.compile(r"[ \t\n]*")


def json_records(text: str, source: str) -> Iterator[Record]:
    """The records of a text, one after the other.

    Args:
        text: The content of the file.
        source: Its name, for messages.

    Raises:
        SkillSetError: what is no JSON object; names the line.
    """
    # A line end inside a text is written as an escape, so this touches no value.
    scanner = _Scanner(text.replace("\r\n", "\n").replace("\r", "\n"), source)
    while first := scanner.peek():
        if first == "[":
            yield from _records(scanner)
            continue
        start, where = scanner.at, scanner.where()
        fields = _an_object(scanner.value(where), where)
        members = [
            name
            for name, value in fields.items()
            if isinstance(value, list) and _is_wrapper(name, value)
        ]
        if not members or known_form(list(fields)):
            scanner.check_length(start, where)
            yield Record(where, fields)
            continue
        around = {name: value for name, value in fields.items() if name not in members}
        yield Record(where, around, "around")
        scanner.at = start
        yield from _unwrap(scanner, members)


class _NoJsonValueError(Exception):
    """What Python would read without a word."""


def _refuse(name: str) -> NoReturn:
    raise _NoJsonValueError(f"{name} is no JSON value; write a text instead")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        name = next(name for name, n in Counter(name for name, _ in pairs).items() if n > 1)
        raise _NoJsonValueError(f"the field {short_text(name)} stands twice; keep one of the two")
    return fields


_DECODER = json.JSONDecoder(
    parse_constant=_refuse, parse_int=Number, parse_float=Number, object_pairs_hook=_unique
)


class _Scanner:
    """A place in a text of JSON values, and the line that it is on."""

    def __init__(self, text: str, source: str) -> None:
        self.text, self.source, self.at = text, source, 0
        self._line, self._counted = 1, 0

    def peek(self) -> str:
        """The next letter that is no space; empty at the end."""
        self.at = _SPACE.match(self.text, self.at).end()  # pyright: ignore[reportOptionalMemberAccess]
        return self.text[self.at : self.at + 1]

    def where(self) -> str:
        """`FILE:LINE` of the place; lines are counted from the last one asked for."""
        if self.at < self._counted:
            self._line, self._counted = 1, 0
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return f"{self.source}:{self._line}"

    def value(self, where: str) -> Any:
        """The value at the place, which moves behind it."""
        value, self.at = decode_json(self.text, where, self.at)
        return value

    def expect(self, letters: str, where: str) -> str:
        """One of these letters, behind spaces."""
        letter = self.peek()
        if not letter or letter not in letters:
            what = short_text(letter) if letter else "the end"
            raise SkillSetError(
                f"{where}: is not JSON (expected {' or '.join(letters)}, found {what}); mend it "
                "there, or write one object a line"
            )
        self.at += 1
        return letter

    def check_length(self, start: int, where: str) -> None:
        """See that the value from `start` to the place is no longer than a record may be."""
        length = self.at - start
        if length > MAX_RECORD_BYTES or (
            4 * length > MAX_RECORD_BYTES
            and len(self.text[start : self.at].encode("utf-8", "surrogatepass")) > MAX_RECORD_BYTES
        ):
            raise SkillSetError(f"{where}: the row is longer than 1 MB; split or shorten it")


def decode_json(text: str, where: str, at: int = 0) -> tuple[Any, int]:
    """The JSON value that begins at a place of a text, and where it ends; numbers are `Number`.

    Raises:
        SkillSetError: it is none.
    """
    try:
        return _DECODER.raw_decode(text, at)
    except _NoJsonValueError as error:
        raise SkillSetError(f"{where}: {error}") from None
    except RecursionError:
        raise SkillSetError(
            f"{where}: is nested too deeply; write one flat object a line"
        ) from None
    except json.JSONDecodeError as error:
        raise SkillSetError(
            f"{where}: is not JSON ({error.msg} at line {error.lineno}, column {error.colno}); "
            'write one object a line, such as {"skill": "plural", "prompt": "...", "response": '
            '"..."}'
        ) from None


def _records(scanner: _Scanner, split: str | None = None) -> Iterator[Record]:
    """The objects of the array at the place; those without a split get the given one."""
    scanner.expect("[", scanner.where())
    if scanner.peek() == "]":
        scanner.at += 1
        return
    after, n = ",", 0
    while after == ",":
        n += 1
        scanner.peek()
        start, where = scanner.at, f"{scanner.where()}, item {n}"
        record = _an_object(scanner.value(where), where)
        scanner.check_length(start, where)
        yield Record(
            where, record if split is None or record.get("split") else record | {"split": split}
        )
        after = scanner.expect(",]", scanner.where())


def _is_wrapper(name: str, value: list[Any]) -> bool:
    is_known = fold(name) in _WRAPPERS or fold(name) in SPLIT_NAMES
    return is_known and all(isinstance(item, dict) for item in value)


def _unwrap(scanner: _Scanner, members: list[str]) -> Iterator[Record]:
    """The rows that stand in some members of the object at the place."""
    scanner.expect("{", scanner.where())
    after = ","
    while after == ",":
        scanner.peek()
        where = scanner.where()
        name = scanner.value(where)
        scanner.expect(":", where)
        scanner.peek()
        if name in members:
            yield from _records(scanner, SPLIT_NAMES.get(fold(name)))
        else:
            scanner.value(where)
        after = scanner.expect(",}", scanner.where())


def _an_object(record: Any, where: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise SkillSetError(f"{where}: expected a JSON object, got {short_text(record)}")
    return record
