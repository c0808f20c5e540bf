"""A record of a file, field name -> value, and how values and names are shown in messages."""

import json
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

_SHOWN_NAMES = 8


class Number(str):
    """A number of a JSON file, written as it stands there: as a text it loses no digit."""

    __slots__ = ()


class Record(NamedTuple):
    """One record of a file.

    Attributes:
        where: `FILE:LINE`; in a JSON array `FILE:LINE, item N`.
        fields: Its values by name.
        kind: `json`; `cells` of a table of texts, in which a list is written as JSON; or `around`,
            fields that stand around the rows of a file and belong to none.
    """

    where: str
    fields: dict[str, Any]
    kind: Literal["json", "cells", "around"] = "json"


def short_text(value: Any) -> str:
    """A value as short and plain text for a message."""
    text = str(value) if isinstance(value, Number) else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def name_list(names: Iterable[str], most: int = _SHOWN_NAMES) -> str:
    """The first names, for a message."""
    all_names = list(names)
    more = f" and {len(all_names) - most} more" if len(all_names) > most else ""
    plain = (
        name if name.isprintable() and len(name) <= 40 else short_text(name)
        for name in all_names[:most]
    )
    return (", ".join(plain) or "no field") + more


def quote(name: str) -> str:
    """A field's name in quotes, for a message."""
    text = repr(str(name))
    return text if len(text) <= 60 else text[:57] + "...'"
