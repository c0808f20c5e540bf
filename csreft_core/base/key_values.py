"""Keys and values of a batch's first columns, as a cache that the blocks read and leave as it is.

Written by the blocks themselves into a cache that drops nothing, also where a family's own one
would: windows of attention are in the mask. No table of model families.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

KeyValues = tuple[Tensor, Tensor]
"""Keys and values of one block, each [batch, head, column, size]."""


class _Columns(DynamicLayer):
    """Columns that a forward reads and puts its own behind, for itself alone.

    So a block may run again in the backward pass, and many forwards may start from the same ones.
    Without keys they are only counted: for a block that does not run, or has no attention.
    """

    def __init__(self, n: int, key_values: KeyValues | None) -> None:
        super().__init__()
        self._n = n
        if key_values is not None:
            self.keys, self.values = key_values
            self.device, self.is_initialized = self.keys.device, True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any
    ) -> KeyValues:
        """The columns, then those of this forward."""
        if not self.is_initialized:
            raise ValueError("a block asks for keys and values that are not known")
        assert self.keys is not None
        assert self.values is not None
        return torch.cat([self.keys, key_states], -2), torch.cat([self.values, value_states], -2)

    def get_seq_length(self) -> int:
        """Number of the columns."""
        return self._n


def cache_of(key_values: Mapping[int, KeyValues], n_blocks: int, n_columns: int) -> Cache:
    """A cache with keys and values of the first columns of a batch.

    Args:
        key_values: Block -> keys and values.
        n_blocks: Of the base.
        n_columns: That all of them have.
    """
    return Cache([_Columns(n_columns, key_values.get(block)) for block in range(n_blocks)])


def recording_cache() -> Cache:
    """An empty cache that keeps all that the blocks write into it."""
    return DynamicCache()


def recorded(cache: Cache, blocks: Sequence[int], n_columns: int) -> dict[int, KeyValues]:
    """What these blocks have written into a recording cache: block -> keys and values.

    Raises:
        ValueError: it is not of the form of `KeyValues`, or nothing at all.
    """
    found = {}
    for block in blocks:
        layer: Any = cache.layers[block] if block < len(cache.layers) else None
        if layer is None or layer.keys is None or not layer.keys.numel():
            continue
        for states in (layer.keys, layer.values):
            if states.ndim != 4 or states.shape[2] != n_columns:
                raise ValueError(f"block {block} keeps keys of shape {list(states.shape)}")
        found[block] = (layer.keys, layer.values)
    if blocks and not found:
        raise ValueError("no block has written keys and values")
    return found
