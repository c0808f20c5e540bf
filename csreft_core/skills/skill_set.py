"""Skill sets: rows with their skills and splits.

A skill set is read and written here; single files and their forms are read by `formats.rows`.
The only randomness is that of explicit seeds.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from csreft_core.config import ASSETS
from csreft_core.errors import SkillSetError
from csreft_core.files import write_atomic
from csreft_core.skills.formats.kept_rows import kept_rows
from csreft_core.skills.formats.rows import SPLITS, ReadRows, Row, read_rows
from csreft_core.skills.names import joint_name
from csreft_core.skills.splits import check_leaks, check_names, in_one_order, with_splits
from csreft_core.skills.spreadsheets import harmless

TEST_SPLITS = ("test_items", "test_paraphrases", "test_both")
SHIPPED = ("four", "six", "eight", "two_skills", "english")

__all__ = [
    "CELLS",
    "SHIPPED",
    "SPLITS",
    "TEST_SPLITS",
    "Row",
    "SkillSet",
    "as_cells",
    "as_csv",
    "as_jsonl",
    "checked_set",
    "evenly",
    "read_kept",
    "read_skills",
    "skill_name",
    "write_skills",
]


@dataclass(frozen=True)
class SkillSet:
    """Rows in the order of their file.

    Attributes:
        rows: All rows of all splits.
        names: The skills, in the order of first appearance.
        notes: What the user should know about how they were read.
    """

    rows: tuple[Row, ...]
    names: tuple[str, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

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
        splits = {"test": TEST_SPLITS, "all": SPLITS}.get(name, (name,))
        rows = tuple(row for row in self.rows if row.split in splits)
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


def read_skills(
    path: str, skill_column: str = "skill", seed: int = 0, *, to_train: bool = True
) -> SkillSet:
    """Read a skill set and check it.

    Rows without a split get one: 80 % train, 10 % validation, 10 % test_items, by a shuffle inside
    each skill; rows with the same prompt stay together.

    Args:
        path: A shipped name (`SHIPPED`), a `.jsonl`, `.json`, `.csv` or `.tsv` file, or a folder
            with one file a skill; `~` is the home folder.
        skill_column: Name of the field that holds the skill.
        seed: Of the shuffle.
        to_train: Whether it must have rows to train on, and the skill column that is named; rows
            that a finished run answers need neither.

    Raises:
        SkillSetError: names the file, the line and the field of what is wrong.
    """
    if path in SHIPPED:
        return read_kept(ASSETS / "skills" / f"{path}.jsonl")
    try:
        file = Path(path).expanduser()
    except RuntimeError:
        raise SkillSetError(f"{path}: there is no such home folder; give the whole path") from None
    if not file.exists():
        raise SkillSetError(
            f"{path}: no such skill set; give a file, a folder or one of {', '.join(SHIPPED)}"
        )
    rows = read_rows(file, skill_column, must_have=to_train)
    return checked_set(rows, path, seed, to_train=to_train)


def read_kept(path: Path) -> SkillSet:
    """Read what `write_skills` wrote, as it stands: it was checked before it was written.

    So a run can be used with the rows that it was trained on, whatever is asked of new ones.

    Raises:
        SkillSetError: the file is missing or was changed; names the line.
    """
    rows = tuple(kept_rows(path))
    return SkillSet(rows, _names(rows))


def checked_set(read: ReadRows, source: str, seed: int = 0, *, to_train: bool = True) -> SkillSet:
    """A skill set of rows that were read, with a split for each.

    Args:
        read: The rows.
        source: Where they come from, for messages.
        seed: Of the shuffle that gives splits to rows that have none.
        to_train: Whether there must be rows to train on.

    Raises:
        SkillSetError: a test row has the prompt of a training row, two sets of skills have one
            name in tables, or there is no row to train on.
    """
    items = in_one_order(with_splits(read.rows, seed))
    check_leaks(items)
    notes = (*read.notes, *check_names(items))
    rows = tuple(item.row for item in items)
    if to_train and not any(row.split == "train" for row in rows):
        raise SkillSetError(f"{source}: no row has the split 'train'; training needs some")
    return SkillSet(rows, _names(rows), notes)


def _names(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for row in rows for name in row.skills))


def write_skills(skill_set: SkillSet, path: Path) -> None:
    """Write native JSONL, atomically; `read_kept` gives the same skill set back."""
    write_atomic(path, as_jsonl(skill_set.rows))


def as_jsonl(rows: Sequence[Row]) -> str:
    """Rows in the project's own form, one JSON object a line."""
    return "".join(_line(row) + "\n" for row in rows)


CELLS = ("skill", "prompt", "response", "split", "item")
"""Columns of a table of rows."""


def as_csv(rows: Sequence[Row]) -> str:
    """Rows as CSV; several skills, or a name that looks like a list, stand in a cell as JSON.

    A text that a spreadsheet would run gets an apostrophe in front; JSONL keeps all as they are.
    """
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(CELLS)
    writer.writerows(map(harmless, as_cells(row)) for row in rows)
    return table.getvalue()


def as_cells(row: Row) -> tuple[str, str, str, str, str]:
    """A row as the cells of `CELLS`; several skills are JSON."""
    names = row.skills
    plain = len(names) == 1 and not names[0].startswith("[")
    name_list = json.dumps(names, ensure_ascii=False) if names else ""
    return names[0] if plain else name_list, row.prompt, row.response, row.split, row.item


def _line(row: Row) -> str:
    record: dict[str, Any] = {}
    if row.skills:
        record["skill"] = row.skills[0] if len(row.skills) == 1 else list(row.skills)
    record.update(prompt=row.prompt, response=row.response, split=row.split)
    if row.item:
        record["item"] = row.item
    return json.dumps(record, ensure_ascii=False)


def skill_name(row: Row) -> str:
    """The name under which a row is counted: `a`, `a+b` for two skills, or `unlabelled`."""
    return joint_name(row.skills)


def evenly(rows: Sequence[Row], per_skill: int) -> tuple[Row, ...]:
    """At most `per_skill` rows of each skill, spread evenly over the rows of that skill."""
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(skill_name(row), []).append(place)
    selection = []
    for places in groups.values():
        n = min(per_skill, len(places))
        selection += [places[i * len(places) // n] for i in range(n)]
    return tuple(rows[place] for place in sorted(selection))
