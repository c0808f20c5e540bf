"""The files of shipped skill sets: which of all possible prompts are kept, and their form.

What is drawn at random comes from the seed of a skill set.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
Row = dict[str, str | list[str]]


def to_jsonl(rows: Sequence[Row]) -> str:
    """One JSON object a line, UTF-8 letters as they are."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_skill_sets(folder: Path, files: Mapping[str, Sequence[Row]]) -> None:
    """Write files by name into ``folder``, over older ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        (folder / name).write_text(to_jsonl(rows), encoding="utf-8")


def draw(
    rng: np.random.Generator, wordings: Sequence[str], items: Sequence[Item], limit: int
) -> Iterator[tuple[str, Item]]:
    """At most ``limit`` pairs of a wording and an item; every one of both as evenly as possible."""
    limit = min(limit, len(wordings) * len(items))
    order, shift = rng.permutation(len(items)), int(rng.integers(len(wordings)))
    # Round by round through the items; each moves on by one wording a round.
    for i in range(limit):
        turn, position = divmod(i, len(items))
        yield wordings[(position + turn + shift) % len(wordings)], items[int(order[position])]
