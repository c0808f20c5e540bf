"""Sizes of methods for the same number of trained parameters."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from csreft_core.base.load import Base
from csreft_core.config import Config
from csreft_core.errors import ConfigError
from csreft_core.methods.build import build_method

_WITHOUT_SIZE = ("bitfit", "full")
_BLOCKS_ALONE = ("red", "ia3")  # their size is the number of blocks
_ALL_BLOCKS = ("prefix",)


def match_budget(config: Config, base: Base, skills: tuple[str, ...], budget: int) -> Config:
    """The config with the size whose number of trained parameters is nearest to the budget.

    Nearest by ratio. CS-ReFT and its forms change `adapter.rank`; other methods `method.size`, and
    `method.layers` where even the smallest size in all blocks is too much: then they have fewer
    blocks, evenly spread. BitFit and full fine-tuning stay as they are.

    Args:
        config: Settings of a method.
        base: The base.
        skills: Of the data.
        budget: Number of trained parameters, at least 1.
    """
    if config.method.name in _WITHOUT_SIZE:
        return config
    choices = [
        (_total(choice, base, skills), choice) for choice in _choices(config, base, skills, budget)
    ]
    return min(choices, key=lambda total_and_choice: abs(math.log(total_and_choice[0] / budget)))[1]


def _total(config: Config, base: Base, skills: tuple[str, ...]) -> int:
    return build_method(config, base, skills).counts()["total"]


def _choices(config: Config, base: Base, skills: tuple[str, ...], budget: int) -> Iterator[Config]:
    """Candidates, those with more blocks first: `min` takes the first of equals."""
    name = config.method.name
    if name == "csreft":
        yield from _sizes(config, base, skills, budget)
        return
    for n in range(base.n_layers, 0, -1):
        blocks = np.unique(np.linspace(0, base.n_layers - 1, n).round().astype(int))
        layers = None if n == base.n_layers else tuple(blocks.tolist())
        method = replace(config.method, layers=layers)
        if name in _BLOCKS_ALONE:
            yield replace(config, method=method)
            continue
        sizes = list(_sizes(replace(config, method=method), base, skills, budget))
        yield from sizes
        if name in _ALL_BLOCKS or sizes[0].method.size > 1 or len(sizes) > 1:
            return


def _sizes(config: Config, base: Base, skills: tuple[str, ...], budget: int) -> Iterator[Config]:
    """The two sizes around the budget; the count grows by the same number with each."""
    one = _total(_with_size(config, 1), base, skills)
    step = _total(_with_size(config, 2), base, skills) - one
    exact = 1 + (budget - one) / step
    for size in dict.fromkeys((max(1, math.floor(exact)), max(1, math.ceil(exact)))):
        candidate = _with_size(config, size)
        try:
            build_method(candidate, base, skills)
        except ConfigError:  # more rows than the base has dimensions
            candidate = _with_size(config, _largest(config, base, skills, size))
        yield candidate


def _largest(config: Config, base: Base, skills: tuple[str, ...], size: int) -> int:
    """The largest rank that fits the width of the base."""
    k = config.adapter.n_subspaces or len(skills)
    stacked = config.adapter.constraint in ("joint", "sequential", "fixed")
    return max(1, min(size, base.d_model // k if stacked else base.d_model))


def _with_size(config: Config, size: int) -> Config:
    if config.method.name == "csreft":
        return replace(config, adapter=replace(config.adapter, rank=size))
    return replace(config, method=replace(config.method, size=size))
