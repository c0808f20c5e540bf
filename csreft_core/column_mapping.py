"""Which columns of somebody's file are the prompt, the answer, the skill and the split.

Files in a known form need no mapping of their texts; all others get a suggestion from the names of
their columns. The mapped records are in the project's own form. No I/O.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from csreft_core.errors import SkillSetError
from csreft_core.skill_formats import SPLITS
from csreft_core.skill_records import Record, listed, shown

Form = Literal["project", "alpaca", "chat"]

_USUAL: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt", "instruction", "question", "query", "text", "source", "problem"),
    "response": ("response", "output", "answer", "completion", "target", "label", "solution"),
    "input": ("input", "context", "passage"),
    "skill": ("skill", "task", "category", "subject", "topic", "type", "dataset"),
    "split": ("split", "partition", "subset"),
}
_USUAL_SPLITS = {
    "training": "train", "dev": "validation", "val": "validation", "valid": "validation",
    "test": "test_items",
}  # fmt: skip


@dataclass(frozen=True)
class ColumnMapping:
    """Where the parts of a row stand.

    Attributes:
        prompt: Column of the prompt; None where the form of the file is known, and then the texts
            are read as that form says.
        response: Column of the answer; goes with `prompt`.
        input: Column of a text that is put below the prompt, where it is not empty.
        skill: Column of the skill.
        one_skill: A skill for every row; goes before `skill`.
        split: Column of the split; without it rows get splits by a shuffle.
    """

    prompt: str | None = None
    response: str | None = None
    input: str | None = None
    skill: str | None = None
    one_skill: str | None = None
    split: str | None = None


def known_form(columns: Sequence[str]) -> Form | None:
    """The form of a file by its columns; None where the columns have to be mapped."""
    if "messages" in columns:
        return "chat"
    if {"instruction", "output"} <= set(columns):
        return "alpaca"
    if {"prompt", "response"} <= set(columns) and "input" not in columns:
        return "project"
    return None


def suggested(columns: Sequence[str]) -> ColumnMapping:
    """A mapping guessed from the names of the columns; each column is used once."""
    left = list(columns)
    found: dict[str, str] = {}
    for part in ("prompt", "response", "input", "skill", "split"):
        names = {name.strip().lower(): name for name in reversed(left)}
        match = next((names[usual] for usual in _USUAL[part] if usual in names), None)
        if match is not None:
            found[part] = match
            left.remove(match)
    if known_form(columns):
        found = {part: name for part, name in found.items() if part in ("skill", "split")}
    return ColumnMapping(**found)


def mapped(records: Iterable[Record], mapping: ColumnMapping) -> list[Record]:
    """The records with the fields that `skill_formats.as_rows` reads.

    Numbers become texts as they stand in the file; usual names of splits (dev, val, test) become
    the project's.

    Raises:
        SkillSetError: a record lacks a column, or has an unknown split.
    """
    if (mapping.prompt is None) != (mapping.response is None):
        raise SkillSetError("choose a column for the prompt and one for the response")
    return [Record(record.where, _fields(record, mapping)) for record in records]


def _fields(record: Record, mapping: ColumnMapping) -> dict[str, Any]:
    if mapping.prompt is None or mapping.response is None:
        fields = {k: v for k, v in record.fields.items() if k not in ("skill", "split")}
    else:
        prompt, given = _value(record, mapping.prompt), None
        if mapping.input is not None:
            given = _as_text(record.fields.get(mapping.input))
        joined = (
            f"{prompt}\n{given.strip()}" if isinstance(given, str) and given.strip() else prompt
        )
        fields = {"prompt": joined, "response": _value(record, mapping.response)}
    if mapping.one_skill is not None:
        fields["skill"] = mapping.one_skill
    elif mapping.skill is not None:
        fields["skill"] = _as_text(record.fields.get(mapping.skill))
    if mapping.split is not None:
        fields["split"] = _split(record, mapping.split)
    return fields


def _value(record: Record, column: str) -> Any:
    if column not in record.fields:
        raise SkillSetError(
            f"{record.where}: field {shown(column)} is missing; found {listed(record.fields)}"
        )
    return _as_text(record.fields[column])


def _as_text(value: Any) -> Any:
    """A number as a text; whatever else stays, and is judged where the rows are read."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _split(record: Record, column: str) -> str | None:
    given = record.fields.get(column)
    if given is None or (isinstance(given, str) and not given.strip()):
        return None
    name = given.strip().lower() if isinstance(given, str) else given
    split = _USUAL_SPLITS.get(name, name) if isinstance(name, str) else name
    if split not in SPLITS:
        raise SkillSetError(
            f"{record.where}: field {shown(column)}: expected a split such as "
            f"{', '.join(SPLITS)}, got {shown(given)}; choose another column, or none"
        )
    return split
