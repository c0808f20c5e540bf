"""Where a forward starts: above a block whose output is known, behind columns that are known.

A forward of whole rows with a `Start` computes the rest alone. An edit changes nothing below its
layer, nor anything of the tokens before the first edited one, at any layer.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from csreft_core.base.key_values import KeyValues, cache_of

_TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
"""Of the largest logit: sums in another order over all blocks."""


@dataclass(frozen=True)
class Start:
    """What is known of a batch before it runs.

    Attributes:
        states: Output of blocks: layer -> [batch, seq, d_model], where the first columns may be
            missing but for the layer that a router reads. Blocks up to the highest do not run.
        key_values: Of the blocks above, in the first columns, which do not run.
        n_columns: How many columns these are.
    """

    states: dict[int, Tensor]
    key_values: dict[int, KeyValues] = field(default_factory=dict)
    n_columns: int = 0

    @property
    def layer(self) -> int:
        """The highest block that does not run."""
        return max(self.states)

    def output(self, layer: int, own_input: Tensor) -> Tensor:
        """What a block that does not run gives: its known output, or what it gets."""
        if layer not in self.states:
            return own_input
        return self.states[layer][:, -own_input.shape[1] :]

    def rest_of(self, inputs: dict[str, Any], cache: str, n_blocks: int) -> dict[str, Any]:
        """The arguments of a model for the columns that run.

        Args:
            inputs: For whole rows.
            cache: Name of the argument that takes a key-value cache.
            n_blocks: Of the base.
        """
        if not self.n_columns:
            return inputs
        rest = dict(inputs)
        for name in ("input_ids", "inputs_embeds"):
            if inputs.get(name) is not None:
                rest[name] = inputs[name][:, self.n_columns :]
        if inputs.get("position_ids") is not None:
            rest["position_ids"] = inputs["position_ids"][..., self.n_columns :]
        rest[cache] = cache_of(self.key_values, n_blocks, self.n_columns)
        return {**rest, "use_cache": True}


def same_logits(short: Float[Tensor, "site vocab"], whole: Float[Tensor, "site vocab"]) -> bool:
    """Whether a forward that starts from what is known gives what a whole one gives."""
    # A token that a model rules out is minus infinity in both.
    gap = torch.where(whole == short, 0, whole - short).abs().max()
    scale = torch.where(whole.isfinite(), whole.abs(), 0).max()
    return bool(gap <= _TOLERANCE.get(whole.dtype, 0.0) * scale)
