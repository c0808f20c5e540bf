"""What holds between rows: their splits, that no test row was trained on, names that are alike.

The only randomness is that of the given seed.
"""

import unicodedata
from collections import defaultdict

import numpy as np

from csreft_core.errors import SkillSetError
from csreft_core.skills.formats.rows import ReadRow
from csreft_core.skills.names import check_joint_names, lookalikes


def with_splits(items: list[ReadRow], seed: int) -> list[ReadRow]:
    """Give a split to rows that have none: 80 % train, 10 % validation, 10 % test_items.

    The shuffle is made inside each skill; rows with the same prompt stay together.

    Args:
        items: Rows as they were read.
        seed: Of the shuffle.
    """
    own = {_same(item): item.row.split for item in items if item.row.split}
    strata: dict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
    for item in items:
        if _same(item) not in own:
            strata[item.row.skills][_same(item)] = None
    rng = np.random.default_rng(seed)
    draws: dict[str, str] = {}
    for prompts in strata.values():
        order = [prompt for prompt in prompts if prompt not in draws]
        n_held_out = max(1, round(len(order) / 10)) if len(order) >= 3 else 0
        for place, i in enumerate(rng.permutation(len(order))):
            split = (
                ("validation", "test_items")[place // n_held_out]
                if (place < 2 * n_held_out)
                else "train"
            )
            draws[order[i]] = split
    splits = {**draws, **own}
    return [
        item._replace(row=item.row._replace(split=item.row.split or splits[_same(item)]))
        for item in items
    ]


def check_leaks(items: list[ReadRow]) -> None:
    """See that no test row has the prompt of a training row.

    Raises:
        SkillSetError: names both rows.
    """
    train_places = {_same(item): item.where for item in items if item.row.split == "train"}
    for item in items:
        if item.row.split.startswith("test") and _same(item) in train_places:
            raise SkillSetError(
                f"{item.where}: field 'prompt': this {item.row.split} row has the prompt of the "
                f"train row {train_places[_same(item)]}; drop one, or the test shows nothing"
            )


def _same(item: ReadRow) -> str:
    """The prompt with composed letters: two ways to write an é are one prompt."""
    return unicodedata.normalize("NFC", item.row.prompt)


def in_one_order(items: list[ReadRow]) -> list[ReadRow]:
    """The rows with the skills of a pair in one order: that in which they were seen first."""
    names = list(dict.fromkeys(name for item in items for name in item.row.skills))
    first = {name: i for i, name in enumerate(names)}
    return [
        item._replace(
            row=item.row._replace(skills=tuple(sorted(item.row.skills, key=first.__getitem__)))
        )
        for item in items
    ]


def check_names(items: list[ReadRow]) -> tuple[str, ...]:
    """See that no two sets of skills have one name in tables.

    Returns:
        Notes on skills whose names differ in nothing but capitals, spaces, dashes or underscores.

    Raises:
        SkillSetError: two have; names both places.
    """
    places: dict[tuple[str, ...], str] = {}
    of_name: dict[str, str] = {}
    for item in items:
        places.setdefault(item.row.skills, item.where)
        for name in item.row.skills:
            of_name.setdefault(name, item.where)
    check_joint_names(places)
    return tuple(
        f"{of_name[b]}: the skills {a!r} (of {of_name[a]}) and {b!r} differ in nothing but "
        "capitals, spaces or dashes and are two; rename one if one skill is meant"
        for a, b in lookalikes(of_name)
    )
