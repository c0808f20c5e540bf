"""When two names are one: forms of letters, invisible letters, capitals and spaces.

Skills, columns and splits are told apart by these rules. No I/O.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from csreft_core.errors import SkillSetError

UNLABELLED = "unlabelled"
# Zero-width space, word joiner, byte order mark, soft hyphen: nobody sees them in a name.
_INVISIBLE = re.compile("[\u200b\u2060\ufeff\u00ad]")
_BETWEEN = re.compile(r"[\s_\-]+")


@lru_cache(4096)
def plain_name(name: str) -> str:
    """A name as it is kept: composed letters (NFC), nothing invisible, single spaces inside."""
    composed = unicodedata.normalize("NFC", _INVISIBLE.sub("", name))
    return " ".join(composed.split())


@lru_cache(4096)
def fold(name: str) -> str:
    """A name without capitals, with `_` for spaces and dashes, as fields and splits are known."""
    return _BETWEEN.sub("_", plain_name(name).casefold()).strip("_")


def lookalikes(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ in nothing but capitals, spaces, dashes and underscores."""
    first: dict[str, str] = {}
    pairs = []
    for name in names:
        earlier = first.setdefault(fold(name).replace("_", ""), name)
        if earlier != name:
            pairs.append((earlier, name))
    return pairs


def joint_name(skills: Sequence[str]) -> str:
    """The name under which rows are counted: `a`, `a+b` for two skills, or `unlabelled`."""
    return "+".join(skills) or UNLABELLED


def is_part(name: str, whole: str, names: Iterable[str]) -> bool:
    """Whether a skill is one of those counted as `whole`; some of `names` may have a `+` inside."""
    return name == whole if whole in names else f"+{name}+" in f"+{whole}+"


def check_joint_names(places: Mapping[tuple[str, ...], str]) -> None:
    """See that no two sets of skills are counted under one name.

    Args:
        places: Where each set of skills was seen first.

    Raises:
        SkillSetError: names both places.
    """
    by_name: dict[str, tuple[str, ...]] = {}
    for skills, where in places.items():
        other = by_name.setdefault(joint_name(skills), skills)
        if other != skills:
            raise SkillSetError(
                f"{where}: field 'skill': {_in_words(skills)} would be counted as "
                f"{joint_name(skills)!r}, and so would {_in_words(other)} of {places[other]}; "
                "rename one of the skills"
            )


def _in_words(skills: tuple[str, ...]) -> str:
    if not skills:
        return "the row without a skill"
    return f"the skill {skills[0]!r}" if len(skills) == 1 else f"the pair {', '.join(skills)}"
