"""How many parameters a method trains, from the published shape of a base: formulas alone.

Nothing is built or loaded. Shares are in percent, as the papers print them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from csreft_core.config import ASSETS
from csreft_core.errors import ConfigError


@dataclass(frozen=True)
class Shape:
    """The sizes of a published base that decide how much a method trains.

    Attributes:
        base: Its name.
        d_model: Width of the hidden states.
        n_layers: Blocks.
        d_ff: Width inside the feed-forward part.
        d_kv: Width of keys and values, all heads together.
        parameters: All parameters.
        nominal: The round number that its name gives.
        source: Where the numbers come from.
    """

    base: str
    d_model: int
    n_layers: int
    d_ff: int
    d_kv: int
    parameters: int
    nominal: int
    source: str

    def matrices(self, names: Sequence[str]) -> list[tuple[int, int]]:
        """Input and output width of the named weights of a Llama block."""
        d, ff, kv = self.d_model, self.d_ff, self.d_kv
        sizes = {
            "q": (d, d),
            "k": (d, kv),
            "v": (d, kv),
            "o": (d, d),
            "gate": (d, ff),
            "up": (d, ff),
            "down": (ff, d),
        }
        return [sizes[name] for name in names]


@cache
def shapes() -> dict[str, Shape]:
    """The published shapes by the name of the base."""
    text = (ASSETS / "paper_tables" / "shapes.json").read_text(encoding="utf-8")
    return {entry["base"]: Shape(**entry) for entry in json.loads(text)}


def shape_of(base: str) -> Shape:
    """The shape of a base.

    Raises:
        ConfigError: no published shape has that name.
    """
    if base not in shapes():
        raise ConfigError(f"unknown base {base!r}; choose one of {', '.join(shapes())}")
    return shapes()[base]


def edit_parameters(form: str, d_model: int, rank: int) -> int:
    """Parameters of one edit: r(2d + 1), or r(d + 1) for the forms without W.

    ReFT, equations 2 and 3 and table 17. R is counted whole, as the papers count it, although
    orthonormal rows have r(r + 1)/2 fewer free directions.
    """
    matrices = 1 if form in ("consreft", "lobireft") else 2
    return rank * (matrices * d_model + 1)


def subspace_parameters(
    d_model: int,
    *,
    rank: int,
    layers: int,
    subspaces: int = 1,
    groups: int = 1,
    form: str = "loreft",
) -> int:
    """g |L| k times one edit: all subspaces of CS-ReFT, or a ReFT method with k = 1.

    Args:
        d_model: Width d.
        rank: r.
        layers: How many layers are edited, |L|.
        subspaces: k.
        groups: g, 2 for untied first and last tokens.
        form: Of the edit.
    """
    return groups * layers * subspaces * edit_parameters(form, d_model, rank)


def router_parameters(d_model: int, width: int, subspaces: int, *, norm: bool) -> int:
    """m(d + 1) + k(m + 1), and d more with an RMS norm in front (CS-ReFT, section 4; own norm)."""
    return width * (d_model + 1) + subspaces * (width + 1) + (d_model if norm else 0)


def paper_router_parameters(d_model: int, subspaces: int) -> int:
    """The router of CS-ReFT's section 4: d to d/2 to k, no norm."""
    return router_parameters(d_model, d_model // 2, subspaces, norm=False)


def red_parameters(shape: Shape) -> int:
    """RED: a scale and a bias for each dimension of each layer."""
    return 2 * shape.d_model * shape.n_layers


def lora_parameters(shape: Shape, rank: int, names: Sequence[str]) -> int:
    """LoRA: r(in + out) for each adapted matrix of each layer."""
    return shape.n_layers * rank * sum(i + o for i, o in shape.matrices(names))


def dora_parameters(shape: Shape, rank: int, names: Sequence[str]) -> int:
    """DoRA: LoRA, and one length for each output."""
    lengths = shape.n_layers * sum(o for _, o in shape.matrices(names))
    return lora_parameters(shape, rank, names) + lengths


def prefix_parameters(shape: Shape, tokens: int) -> int:
    """Prefix tuning: keys and values of so many tokens in each layer."""
    return 2 * tokens * shape.d_kv * shape.n_layers


def share(parameters: int, of: int) -> float:
    """Percent."""
    return 100 * parameters / of


def round_like(value: float, like: str) -> str:
    """The value with as many digits after the point as the printed number `like`."""
    digits = -int(Decimal(like).as_tuple().exponent)  # type: ignore[arg-type]
    return f"{value:.{digits}f}"


def print_interval(text: str, of: int) -> tuple[int, int]:
    """Smallest and largest count whose share, rounded, prints as `text` percent."""
    value = Decimal(text)
    half = Decimal((0, (5,), int(value.as_tuple().exponent) - 1))  # type: ignore[operator]
    low, high = (value - half) * of / 100, (value + half) * of / 100
    return int(low.to_integral_value(rounding="ROUND_CEILING")), int(high // 1)
