"""Which split a row belongs to, and that no test row was trained on.

The only randomness is that of the given seed.
"""

from collections import defaultdict

import numpy as np

from csreft_core.errors import SkillSetError
from csreft_core.skill_formats import ReadRow


def with_splits(read: list[ReadRow], seed: int) -> list[ReadRow]:
    """Give a split to rows that have none: 80 % train, 10 % validation, 10 % test_items.

    The shuffle is made inside each skill; rows with the same prompt stay together.

    Args:
        read: Rows as they were read.
        seed: Of the shuffle.
    """
    known = {item.row.prompt: item.row.split for item in read if item.row.split}
    strata: dict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
    for item in read:
        if item.row.prompt not in known:
            strata[item.row.skills][item.row.prompt] = None
    rng = np.random.default_rng(seed)
    drawn: dict[str, str] = {}
    for prompts in strata.values():
        order = [prompt for prompt in prompts if prompt not in drawn]
        held_out = max(1, round(len(order) / 10)) if len(order) >= 3 else 0
        for place, i in enumerate(rng.permutation(len(order))):
            split = ("validation", "test_items")[place // held_out] if (
                place < 2 * held_out
            ) else "train"  # fmt: skip
            drawn[order[i]] = split
    splits = {**drawn, **known}
    return [
        item._replace(row=item.row._replace(split=item.row.split or splits[item.row.prompt]))
        for item in read
    ]


def check_leaks(read: list[ReadRow]) -> None:
    """See that no test row has the prompt of a training row.

    Raises:
        SkillSetError: names both rows.
    """
    trained = {item.row.prompt: item.where for item in read if item.row.split == "train"}
    for item in read:
        if item.row.split.startswith("test") and item.row.prompt in trained:
            raise SkillSetError(
                f"{item.where}: field 'prompt': this {item.row.split} row has the prompt of the "
                f"train row {trained[item.row.prompt]}; drop one, or the test shows nothing"
            )
