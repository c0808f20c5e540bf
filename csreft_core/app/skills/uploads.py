"""Skill sets that come from outside: checked, limited, and kept under a name of their content.

The name of an upload is shown in messages and never used as a path. Nothing is unpacked. What is
kept is a checked skill set in the project's own form, in `.uploads` beside the runs; a kept file is
never changed, because a run may name it.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csreft_core.app.page.ceilings import MOST_UPLOAD_BYTES as MAX_BYTES
from csreft_core.app.page.ceilings import MOST_UPLOAD_ROWS as MAX_ROWS
from csreft_core.errors import SkillSetError
from csreft_core.files import clear_left_over, storage_errors, write_atomic
from csreft_core.runs.all_runs import runs_root
from csreft_core.skills.formats.column_mapping import ColumnMapping, known_form, usual_mapping
from csreft_core.skills.formats.files import read_records, suffix_of
from csreft_core.skills.formats.records import Record
from csreft_core.skills.formats.rows import as_rows, columns_of
from csreft_core.skills.skill_set import SkillSet, as_jsonl, checked_set

_LONGEST_NAME = 255
# Names of devices on Windows, with any ending.
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Upload:
    """The records of an upload, before it is said what they mean.

    Attributes:
        name: What the user calls it, for messages.
        records: All of them.
    """

    name: str
    records: tuple[Record, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all fields, in the order of first appearance."""
        return columns_of(self.records)

    @property
    def is_known(self) -> bool:
        """Whether its texts can be read without a mapping."""
        return known_form(self.columns) is not None

    @property
    def is_table(self) -> bool:
        """Whether its columns were named by its first line."""
        return any(record.kind == "cells" for record in self.records)


def open_upload(name: str, data: bytes, *, header: bool = True) -> Upload:
    """Read an upload.

    Args:
        name: Its name, as the browser gives it.
        data: Its content.
        header: Whether the first line of a CSV file names its columns.

    Raises:
        SkillSetError: a name that is a path or a device, too many bytes or rows, or content that
            is not JSONL, JSON, CSV or TSV.
    """
    _check_name(name)
    if len(data) > MAX_BYTES:
        raise SkillSetError(
            f"{name}: has {len(data):,} bytes, at most {MAX_BYTES:,} are taken; take fewer rows, "
            "or train on the command line, which has no such limit"
        )
    records = []
    for record in read_records(data, name, suffix_of(name), header=header):
        if len(records) == MAX_ROWS:
            raise SkillSetError(
                f"{name}: has more than {MAX_ROWS:,} rows; take fewer, or train on the command "
                "line, which has no such limit"
            )
        records.append(record)
    return Upload(name, tuple(records))


def _check_name(name: str) -> None:
    if not name.isprintable() or any(letter in name for letter in "/\\:"):
        raise SkillSetError(
            f"{ascii(name)[:80]}: the name of the upload is a path or has letters that no file "
            "name should have; rename the file"
        )
    if len(name.encode()) > _LONGEST_NAME or _DEVICE.fullmatch(name):
        raise SkillSetError(
            f"{name[:40]}…: the name of the upload is too long, or the name of a device; rename "
            "the file"
        )


def skill_set_of(upload: Upload, mapping: ColumnMapping | None = None) -> SkillSet:
    """The rows of an upload as a checked skill set, with a split for each row.

    Args:
        upload: What was read.
        mapping: Where the parts of a row stand; None reads the file as the command line does.

    Raises:
        SkillSetError: a row that is wrong, or splits that leak; names row and column.
    """
    chosen = usual_mapping(upload.columns) if mapping is None else mapping
    return checked_set(as_rows(upload.records, upload.name, chosen), upload.name)


def edited_set(rows: Sequence[dict[str, Any]]) -> SkillSet:
    """A checked skill set of rows that were edited by hand; messages count rows from 1.

    Args:
        rows: Fields skill (a name, a list of names as JSON, or empty), prompt, response, split
            and item; a row in which all are empty is left out.

    Raises:
        SkillSetError: a row that is wrong, or splits that leak; names row and column.
    """
    if len(rows) > MAX_ROWS:
        raise SkillSetError(f"the table has {len(rows):,} rows, at most {MAX_ROWS:,} are taken")
    records = []
    for i, row in enumerate(rows, start=1):
        texts = {name: "" if value is None else str(value) for name, value in row.items()}
        if any(text.strip() for text in texts.values()):
            records.append(Record(f"row {i}", texts, "cells"))
    mapping = ColumnMapping("prompt", "response", skill="skill", split="split")
    return checked_set(as_rows(records, "the table", mapping), "the table")


def keep(skill_set: SkillSet) -> Path:
    """Keep a skill set; the same rows always get the same file.

    Raises:
        StorageError: the disk refuses.
    """
    data = as_jsonl(skill_set.rows).encode()
    folder = uploads_folder()
    path = folder / f"{hashlib.sha256(data).hexdigest()[:16]}.jsonl"
    with storage_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        clear_left_over(folder)
        if not path.exists():
            write_atomic(path, data)
    return path


def uploads_folder() -> Path:
    """Where uploads are kept: `.uploads` in the folder of the runs."""
    return runs_root() / ".uploads"


def is_kept(path: str) -> bool:
    """Whether a path is that of a kept upload; a page reads no other file."""
    return Path(path).absolute().parent == uploads_folder().absolute()
