"""Reading rows of skills from JSONL, JSON, CSV, Alpaca and chat files.

Checks each row by itself and names the file, the line and the field of what is wrong. Splits of
rows that have none, and what holds between rows, are the matter of `skills`.
"""

import codecs
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from csreft_core.errors import SkillSetError

SPLITS = (
    "train",
    "validation",
    "test_items",
    "test_paraphrases",
    "test_both",
    "test_two_skills",
)
SUFFIXES = (".jsonl", ".json", ".csv")
MAX_LINE_BYTES = 1_000_000

_UTF16_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Row(NamedTuple):
    """One prompt with its response.

    Attributes:
        skills: Names of the skills that it needs; empty if it is unlabelled.
        prompt: The question, without template.
        response: The answer, without white space around it.
        split: One of `SPLITS`.
    """

    skills: tuple[str, ...]
    prompt: str
    response: str
    split: str


class ReadRow(NamedTuple):
    """A row as it was read; `row.split` is empty where the file gives none.

    Attributes:
        row: The row.
        where: `FILE:LINE`, or `FILE: item N` in a JSON array.
    """

    row: Row
    where: str


def read_rows(path: Path, skill_column: str = "skill") -> list[ReadRow]:
    """Read a file, or a folder with one file a skill (the file's stem is the skill).

    Args:
        path: A `.jsonl`, `.json` or `.csv` file, or a folder of them.
        skill_column: Name of the field that holds the skill; in a folder a field goes before the
            file's stem.

    Raises:
        SkillSetError: the file is missing, unreadable or empty, or a row is wrong.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if _is_table(file))
        if not files:
            raise SkillSetError(f"{path}: the folder has no {', '.join(SUFFIXES)} file; add one")
        return [row for file in files for row in _read_file(file, skill_column, file.stem)]
    if path.suffix.lower() not in SUFFIXES:
        raise SkillSetError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
    return _read_file(path, skill_column, None)


def _is_table(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _read_file(path: Path, skill_column: str, stem: str | None) -> list[ReadRow]:
    text = _read_text(path)
    records = _csv_records if path.suffix.lower() == ".csv" else _json_records
    rows, fields = [], {}
    for where, record in records(path, text):
        fields.update(dict.fromkeys(record))
        rows.append(ReadRow(_row(record, where, skill_column, stem), where))
    if not rows:
        raise SkillSetError(f"{path}: has no rows; each needs a prompt and a response")
    if skill_column != "skill" and skill_column not in fields:
        raise SkillSetError(
            f"{path}: no row has the field {skill_column!r} that data.skill_column names; "
            f"the fields are {', '.join(fields)}"
        )
    return rows


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise SkillSetError(f"{path}: no such file; check data.path") from None
    except OSError as error:
        raise SkillSetError(f"{path}: cannot be read ({error.strerror})") from None
    if data.startswith(_UTF16_32):
        raise SkillSetError(f"{path}: is UTF-16 or UTF-32 text; save it as UTF-8")
    if b"\0" in data:
        line = data[: data.index(b"\0")].count(b"\n") + 1
        raise SkillSetError(f"{path}:{line}: has a NUL byte; save the file as UTF-8 text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SkillSetError(f"{path}:{line}: is not UTF-8 text; save the file as UTF-8") from None
    if not text.strip():
        raise SkillSetError(f"{path}: is empty; each row needs a prompt and a response")
    return text


def _json_records(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.suffix.lower() == ".json" and text.lstrip().startswith("["):
        for i, record in enumerate(_parse(text, str(path)), start=1):
            yield f"{path}: item {i}", _an_object(record, f"{path}: item {i}")
        return
    for i, line in enumerate(text.split("\n"), start=1):
        where = f"{path}:{i}"
        if len(line) > MAX_LINE_BYTES or len(line.encode()) > MAX_LINE_BYTES:
            raise SkillSetError(f"{where}: the line is longer than 1 MB; split or shorten it")
        if line.strip():
            yield where, _an_object(_parse(line, where), where)


class _NoJsonValue(Exception):
    """NaN or an infinity, which Python would read and JSON does not have."""


def _refuse(name: str) -> NoReturn:
    raise _NoJsonValue(name)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except _NoJsonValue as name:
        raise SkillSetError(f"{where}: {name} is no JSON value; write a text instead") from None
    except (ValueError, RecursionError) as error:
        place = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        column = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        spot = where if ":" in Path(where).name else where + line
        raise SkillSetError(
            f"{spot}: is not JSON ({place}{column}); write one object a line, such as "
            '{"skill": "plural", "prompt": "...", "response": "..."}'
        ) from None


def _an_object(record: Any, where: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise SkillSetError(f"{where}: expected a JSON object, got {_shown(record)}")
    return record


def _csv_records(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for record in reader:
            where = f"{path}:{reader.line_num}"
            if None in record or None in record.values():
                raise SkillSetError(
                    f"{where}: expected {len(reader.fieldnames or ())} cells as in the first "
                    "line; put quotes around a text that has a comma"
                )
            yield where, {name: _cell(name, value, where) for name, value in record.items()}
    except csv.Error as error:
        raise SkillSetError(f"{path}:{reader.line_num}: is not CSV ({error}); mend it") from None


def _cell(name: str, value: str, where: str) -> Any:
    """An empty cell of an optional column means none; lists (skills, messages) are JSON."""
    if value.lstrip().startswith("[") and name not in _TEXT_FIELDS:
        return _parse(value, where)
    return value if value or name in _TEXT_FIELDS else None


_TEXT_FIELDS = ("prompt", "response", "instruction", "input", "output")


def _row(record: dict[str, Any], where: str, skill_column: str, stem: str | None) -> Row:
    if "messages" in record:
        prompt, response = _from_chat(record["messages"], where)
    elif "instruction" in record:
        prompt, response = _from_alpaca(record, where)
    else:
        prompt, response = _text(record, "prompt", where), _text(record, "response", where)
    split = record.get("split")
    if split is not None and split not in SPLITS:
        raise SkillSetError(
            f"{where}: field 'split': expected one of {', '.join(SPLITS)}, got {_shown(split)}"
        )
    value = record.get(skill_column)
    skills = _skills(stem if value is None else value, where, skill_column)
    return Row(skills, prompt, response, split or "")


def _text(record: dict[str, Any], field: str, where: str) -> str:
    if field not in record:
        raise SkillSetError(
            f"{where}: field {field!r} is missing; found {', '.join(record) or 'no field'}"
        )
    return _checked(record[field], field, where)


def _checked(value: Any, field: str, where: str) -> str:
    if not isinstance(value, str):
        raise SkillSetError(f"{where}: field {field!r}: expected a text, got {_shown(value)}")
    if "\0" in value:
        raise SkillSetError(f"{where}: field {field!r}: has a NUL character; take it out")
    if not value.strip():
        raise SkillSetError(f"{where}: field {field!r} is empty; fill it or drop the row")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise SkillSetError(f"{where}: field {field!r}: has half a character (\\ud800 to \\udfff)")
    return value.strip()


def _skills(value: Any, where: str, field: str) -> tuple[str, ...]:
    if value is None:
        return ()
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(name, str) for name in values):
        raise SkillSetError(
            f"{where}: field {field!r}: expected a skill's name or a list of names, "
            f"got {_shown(value)}"
        )
    names = tuple(_checked(name, field, where) for name in values)
    if len(set(names)) < len(names):
        raise SkillSetError(f"{where}: field {field!r}: names a skill twice, {_shown(value)}")
    return names


def _from_alpaca(record: dict[str, Any], where: str) -> tuple[str, str]:
    prompt = _text(record, "instruction", where)
    if record.get("input"):
        given = record["input"]
        if not isinstance(given, str):
            raise SkillSetError(f"{where}: field 'input': expected a text, got {_shown(given)}")
        prompt = f"{prompt}\n{given.strip()}".strip()
    return _checked(prompt, "instruction", where), _text(record, "output", where)


def _from_chat(messages: Any, where: str) -> tuple[str, str]:
    """The last answer of the assistant, and what was said before it."""
    if not isinstance(messages, list) or not all(_is_message(m) for m in messages):
        raise SkillSetError(
            f"{where}: field 'messages': expected a list of objects with the texts "
            f"'role' and 'content', got {_shown(messages)}"
        )
    last = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=0)
    if last == 0 or messages[last - 1]["role"] != "user":
        raise SkillSetError(
            f"{where}: field 'messages': expected a message of the user and then one of the "
            f"assistant, got the roles {', '.join(m['role'] for m in messages) or 'of nobody'}"
        )
    texts = [_checked(m["content"], "messages", where) for m in messages[: last + 1]]
    if last == 1:
        return texts[0], texts[1]
    turns = zip(messages[:last], texts, strict=False)
    return "\n".join(f"{m['role']}: {text}" for m, text in turns), texts[last]


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(field), str) for field in ("role", "content")
    )


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
