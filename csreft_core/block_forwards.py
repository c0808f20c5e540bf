"""Blocks of a base whose `forward` is replaced for a while: to skip them, or to recompute them.

The replacement is set on the instance. So the hooks on the block, and whatever else hangs on it,
stay as they are, they run around the replacement, and no table of model families is needed.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def replaced(blocks: nn.ModuleList, forwards: Mapping[int, Callable[..., Any]]) -> Iterator[None]:
    """Inside the `with`, these blocks call these functions."""
    before = {layer: blocks[layer].__dict__.get("forward") for layer in forwards}
    try:
        for layer, forward in forwards.items():
            blocks[layer].__dict__["forward"] = forward
        yield
    finally:
        for layer, forward in before.items():
            if forward is None:
                del blocks[layer].__dict__["forward"]
            else:
                blocks[layer].__dict__["forward"] = forward


def recomputed(blocks: nn.ModuleList, above: int) -> AbstractContextManager[None]:
    """Inside the `with`, blocks above a layer keep their input alone for the backward pass.

    There they run a second time (Chen et al. 2016, arXiv 1604.06174). Only the block itself does,
    not the hooks on it. The backward pass may come after the `with`.
    """
    return replaced(
        blocks,
        {
            layer: partial(checkpoint, blocks[layer].forward, use_reentrant=False)
            for layer in range(above + 1, len(blocks))
        },
    )
