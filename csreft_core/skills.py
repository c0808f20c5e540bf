"""Skill sets: rows with their skills and splits.

A skill set is read and written here; single files and their forms are read by `skill_formats`.
The only randomness is that of explicit seeds.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from csreft_core.config import ASSETS
from csreft_core.errors import SkillSetError
from csreft_core.files import write_atomic
from csreft_core.skill_formats import SPLITS, ReadRow, Row, read_rows
from csreft_core.skill_splits import check_leaks, with_splits

TEST_SPLITS = ("test_items", "test_paraphrases", "test_both")
SHIPPED = ("four", "six", "eight", "two_skills")

__all__ = [
    "SHIPPED",
    "SPLITS",
    "TEST_SPLITS",
    "Row",
    "SkillSet",
    "as_cells",
    "as_csv",
    "as_jsonl",
    "checked_set",
    "read_skills",
    "write_skills",
]


@dataclass(frozen=True)
class SkillSet:
    """Rows in the order of their file.

    Attributes:
        rows: All rows of all splits.
        names: The skills, in the order of first appearance.
    """

    rows: tuple[Row, ...]
    names: tuple[str, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have rows, in the order of `SPLITS`."""
        present = {row.split for row in self.rows}
        return tuple(split for split in SPLITS if split in present)

    def split(self, name: str) -> tuple[Row, ...]:
        """Rows of one split; `test` joins the three test splits, `all` is everything.

        Raises:
            SkillSetError: no such split, or no row in it.
        """
        if name not in (*SPLITS, "test", "all"):
            raise SkillSetError(
                f"unknown split {name!r}; choose one of {', '.join((*SPLITS, 'test', 'all'))}"
            )
        wanted = {"test": TEST_SPLITS, "all": SPLITS}.get(name, (name,))
        rows = tuple(row for row in self.rows if row.split in wanted)
        if not rows:
            raise SkillSetError(
                f"the skill set has no row in the split {name!r}; "
                f"it has {', '.join(self.splits) or 'no rows at all'}"
            )
        return rows

    def labels(self, rows: Sequence[Row]) -> Float[np.ndarray, "row k"]:
        """1 for each skill of a row, else 0; a column for each of `names`.

        Raises:
            SkillSetError: a row is unlabelled, or has a skill that is not in `names`.
        """
        labels = np.zeros((len(rows), len(self.names)), np.float32)
        for i, row in enumerate(rows):
            if not row.skills or not set(row.skills) <= set(self.names):
                raise SkillSetError(
                    f"the row with prompt {row.prompt[:40]!r} has "
                    f"{'no skill' if not row.skills else 'an unknown skill'}; label every row, "
                    "or train without oracle gates and with router.supervision 0"
                )
            labels[i, [self.names.index(name) for name in row.skills]] = 1
        return labels


def read_skills(path: str, skill_column: str = "skill", seed: int = 0) -> SkillSet:
    """Read a skill set and check it.

    Rows without a split get one: 80 % train, 10 % validation, 10 % test_items, by a shuffle inside
    each skill; rows with the same prompt stay together.

    Args:
        path: `four`, `six`, `eight` or `two_skills` (shipped), a `.jsonl`, `.json` or `.csv` file,
            or a folder with one file a skill.
        skill_column: Name of the field that holds the skill.
        seed: Of the shuffle.

    Raises:
        SkillSetError: names the file, the line and the field of what is wrong.
    """
    file = ASSETS / "skills" / f"{path}.jsonl" if path in SHIPPED else Path(path)
    if path not in SHIPPED and not file.exists():
        raise SkillSetError(
            f"{path}: no such skill set; give a file, a folder or one of {', '.join(SHIPPED)}"
        )
    return checked_set(read_rows(file, skill_column), path, seed)


def checked_set(read: list[ReadRow], source: str, seed: int = 0) -> SkillSet:
    """A skill set of rows that were read, with a split for each.

    Args:
        read: The rows.
        source: Where they come from, for messages.
        seed: Of the shuffle that gives splits to rows that have none.

    Raises:
        SkillSetError: a test row has the prompt of a training row, or there is none to train on.
    """
    read = with_splits(read, seed)
    check_leaks(read)
    rows = tuple(item.row for item in read)
    if not any(row.split == "train" for row in rows):
        raise SkillSetError(f"{source}: no row has the split 'train'; training needs some")
    return SkillSet(rows, tuple(dict.fromkeys(name for row in rows for name in row.skills)))


def write_skills(skill_set: SkillSet, path: Path) -> None:
    """Write native JSONL, atomically; `read_skills` gives the same skill set back."""
    write_atomic(path, as_jsonl(skill_set.rows))


def as_jsonl(rows: Sequence[Row]) -> str:
    """Rows in the project's own form, one JSON object a line."""
    return "".join(_line(row) + "\n" for row in rows)


def as_csv(rows: Sequence[Row]) -> str:
    """Rows as CSV; several skills, or a name that looks like a list, stand in a cell as JSON."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("skill", "prompt", "response", "split"))
    writer.writerows(as_cells(row) for row in rows)
    return table.getvalue()


def as_cells(row: Row) -> tuple[str, str, str, str]:
    """Skill, prompt, response and split as the cells of a table; a list of skills is JSON."""
    names = row.skills
    plain = len(names) == 1 and not names[0].startswith("[")
    listed = json.dumps(names, ensure_ascii=False) if names else ""
    return names[0] if plain else listed, row.prompt, row.response, row.split


def _line(row: Row) -> str:
    record: dict[str, Any] = {}
    if row.skills:
        record["skill"] = row.skills[0] if len(row.skills) == 1 else list(row.skills)
    record.update(prompt=row.prompt, response=row.response, split=row.split)
    return json.dumps(record, ensure_ascii=False)
