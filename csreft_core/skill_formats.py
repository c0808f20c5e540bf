"""From records to rows of skills: the project's own form, Alpaca and chat.

Checks each row by itself and names the file, the line and the field of what is wrong. Splits of
rows that have none, and what holds between rows, are the matter of `skills`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from csreft_core.errors import SkillSetError
from csreft_core.skill_records import SUFFIXES, Record, listed, read_records, shown, suffix_of

SPLITS = (
    "train",
    "validation",
    "test_items",
    "test_paraphrases",
    "test_both",
    "test_two_skills",
)


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
    suffix_of(str(path))
    return _read_file(path, skill_column, None)


def _is_table(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _read_file(path: Path, skill_column: str, stem: str | None) -> list[ReadRow]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise SkillSetError(f"{path}: no such file; check data.path") from None
    except OSError as error:
        raise SkillSetError(f"{path}: cannot be read ({error.strerror})") from None
    records = read_records(data, str(path), path.suffix.lower())
    return as_rows(records, str(path), skill_column, stem)


def as_rows(
    records: Iterable[Record], source: str, skill_column: str = "skill", stem: str | None = None
) -> list[ReadRow]:
    """Records in one of the known forms as rows.

    Args:
        records: What was read.
        source: Name of the file, for messages.
        skill_column: Name of the field that holds the skill.
        stem: The skill of records that have no such field.

    Raises:
        SkillSetError: there are none, or one is wrong.
    """
    rows, fields = [], {}
    for where, record in records:
        fields.update(dict.fromkeys(record))
        rows.append(ReadRow(_row(record, where, skill_column, stem), where))
    if not rows:
        raise SkillSetError(f"{source}: has no rows; each needs a prompt and a response")
    if skill_column != "skill" and skill_column not in fields:
        raise SkillSetError(
            f"{source}: no row has the field {skill_column!r} that data.skill_column names; "
            f"the fields are {listed(fields)}"
        )
    return rows


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
            f"{where}: field 'split': expected one of {', '.join(SPLITS)}, got {shown(split)}"
        )
    value = record.get(skill_column)
    skills = _skills(stem if value is None else value, where, skill_column)
    return Row(skills, prompt, response, split or "")


def _text(record: dict[str, Any], field: str, where: str) -> str:
    if field not in record:
        raise SkillSetError(f"{where}: field {field!r} is missing; found {listed(record)}")
    return _checked(record[field], field, where)


def _checked(value: Any, field: str, where: str) -> str:
    if not isinstance(value, str):
        raise SkillSetError(f"{where}: field {field!r}: expected a text, got {shown(value)}")
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
            f"got {shown(value)}"
        )
    names = tuple(_checked(name, field, where) for name in values)
    if len(set(names)) < len(names):
        raise SkillSetError(f"{where}: field {field!r}: names a skill twice, {shown(value)}")
    return names


def _from_alpaca(record: dict[str, Any], where: str) -> tuple[str, str]:
    prompt = _text(record, "instruction", where)
    if record.get("input"):
        given = record["input"]
        if not isinstance(given, str):
            raise SkillSetError(f"{where}: field 'input': expected a text, got {shown(given)}")
        prompt = f"{prompt}\n{given.strip()}".strip()
    return _checked(prompt, "instruction", where), _text(record, "output", where)


def _from_chat(messages: Any, where: str) -> tuple[str, str]:
    """The last answer of the assistant, and what was said before it."""
    if not isinstance(messages, list) or not all(_is_message(m) for m in messages):
        raise SkillSetError(
            f"{where}: field 'messages': expected a list of objects with the texts "
            f"'role' and 'content', got {shown(messages)}"
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
