"""Well-known bases by Hub id, with the published shape of each; `assets/bases.json` lists them.

The shapes are facts of the published `config.json` files, so what a base needs in memory can be
said without a network. Nothing is downloaded here.
"""

import json
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from csreft_core.config import ASSETS


@dataclass(frozen=True)
class BasePreset:
    """A base that the project knows.

    Attributes:
        name: As one says it.
        path: For `base.path`: `pocket` or a Hub id.
        licence: Of its weights.
        gated: The Hub gives the weights only to those who accepted the licence there.
        config: Its `model_type` and the numbers that differ from that type's defaults; empty for
            `pocket`, whose folder is shipped.
    """

    name: str
    path: str
    licence: str
    gated: bool
    config: dict[str, Any] = field(default_factory=dict)

    def architecture(self) -> PreTrainedConfig:
        """The configuration that transformers would read from its `config.json`."""
        if not self.config:
            return AutoConfig.from_pretrained(ASSETS / self.path, trust_remote_code=False)
        return AutoConfig.for_model(**self.config)


@cache
def base_presets() -> dict[str, BasePreset]:
    """All of them by path; the shipped one first, then by size."""
    entries = json.loads((ASSETS / "bases.json").read_text(encoding="utf-8"))
    return {entry["path"]: BasePreset(**entry) for entry in entries}
