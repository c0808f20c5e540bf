"""Rows in the project's own form, as a run keeps them: read as they stand, or refused."""

from pathlib import Path

from csreft_core.errors import SkillSetError
from csreft_core.skills.formats.files import read_file, read_records
from csreft_core.skills.formats.records import Record, short_text
from csreft_core.skills.formats.rows import SPLITS, Row


def kept_rows(path: Path) -> list[Row]:
    """The rows of a file in the project's own form, as they stand.

    Raises:
        SkillSetError: the file is missing, or has a line that is no whole row.
    """
    return [_kept_row(record) for record in read_records(read_file(path), str(path), ".jsonl")]


def _kept_row(record: Record) -> Row:
    skill, (prompt, response, split) = (
        record.fields.get("skill", []),
        (record.fields.get(name) for name in ("prompt", "response", "split")),
    )
    names = skill if isinstance(skill, list) else [skill]
    if not all(isinstance(value, str) and value for value in (prompt, response, *names)) or (
        split not in SPLITS
    ):
        raise SkillSetError(
            f"{record.where}: is no row of a kept skill set: expected the texts 'prompt' and "
            f"'response', a split and names of skills, got {short_text(record.fields)}"
        )
    item = str(record.fields.get("item", ""))
    return Row(tuple(map(str, names)), str(prompt), str(response), str(split), item)
