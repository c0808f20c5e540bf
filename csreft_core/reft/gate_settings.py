"""Gate settings for use after training: who decides the gates of a prompt.

`learned` and `hard` ask the router; `oracle`, `uniform`, `off`, `only:<skill>` and a vector give
the gates outright. Values outside [0, 1] are allowed, for dose curves.
"""

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from csreft_core.errors import ConfigError

_NAMED = ("learned", "hard", "oracle", "uniform", "off")


@dataclass(frozen=True)
class GateSetting:
    """A parsed setting; `vector` holds the gates of `uniform`, `off`, `only:` and vectors."""

    kind: Literal["learned", "hard", "oracle", "given"]
    vector: tuple[float, ...] = ()

    @property
    def needs_router(self) -> bool:
        """Whether the router decides."""
        return self.kind in ("learned", "hard")


def parse_gate_setting(setting: str | Sequence[float], names: Sequence[str]) -> GateSetting:
    """Read a setting such as `learned`, `only:french`, `1,0,0,0.5` or `[1, 0, 0, 0.5]`.

    Args:
        setting: The text, or the numbers themselves.
        names: Names of the subspaces, in order.

    Raises:
        ConfigError: unknown setting or skill, wrong number of values, or not finite.
    """
    k = len(names)
    if not isinstance(setting, str):
        return _vector(list(setting), names)
    text = setting.strip()
    if text in ("learned", "hard", "oracle"):
        return GateSetting(text)
    if text == "uniform":
        return GateSetting("given", (1.0 / k,) * k)
    if text == "off":
        return GateSetting("given", (0.0,) * k)
    if text.startswith("only:"):
        skill = text.removeprefix("only:")
        if skill not in names:
            raise ConfigError(
                f"gate setting {text!r}: no subspace {skill!r}; choose one of {', '.join(names)}"
            )
        return GateSetting("given", tuple(float(name == skill) for name in names))
    try:
        values = json.loads(text if text.startswith("[") else f"[{text}]")
    except (ValueError, RecursionError):
        raise ConfigError(
            f"unknown gate setting {text[:80]!r}; expected {', '.join(_NAMED)}, only:<skill> "
            f"or {k} numbers such as {','.join(['1'] + ['0'] * (k - 1))}"
        ) from None
    return _vector(values, names)


def _vector(values: list[Any], names: Sequence[str]) -> GateSetting:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not numbers or len(values) != len(names) or not all(math.isfinite(v) for v in values):
        raise ConfigError(
            f"expected {len(names)} finite gates, one for each of {', '.join(names)}, got {values}"
        )
    return GateSetting("given", tuple(float(v) for v in values))


def setting_as_trained(trained: str, names: Collection[str], skills: Collection[str]) -> str:
    """The setting under which one prompt is asked as the adapter was trained.

    Args:
        trained: `router.gates` of its config: `learned`, `oracle` or `uniform`.
        names: Of the subspaces.
        skills: Of the prompt, as far as they are known.

    Returns:
        What it was trained with; in place of `oracle` it is `uniform` where a skill of the prompt
        is unknown, or has no subspace.
    """
    if trained != "oracle":
        return trained
    return "oracle" if skills and set(skills) <= set(names) else "uniform"
