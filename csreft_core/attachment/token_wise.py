"""Parts of a block that treat every token on its own, such as its feed-forward part.

Above the last attention nobody reads a token but the head. So where only some tokens' logits are
wanted, the feed-forward part of the last block need not see the others. Whether a part is
token-wise is not taken from a table of families: it is tried out on the states at hand.
"""

import math
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

Sites = tuple[Int[Tensor, " site"], Int[Tensor, " site"]]
_KNOWN: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def candidates(block: nn.Module) -> list[nn.Module]:
    """The parts of a block that have matrices: its attention, its feed-forward part."""
    return [
        child
        for child in block.children()
        if any(parameter.ndim >= 2 for parameter in child.parameters())
    ]


def is_token_wise(
    module: nn.Module,
    part: Callable[..., object],
    states: Float[Tensor, "batch seq d_model"],
    sites: Sites,
) -> bool:
    """Whether the outputs at these sites stay when all other tokens are set to zero.

    Args:
        module: Is tried out once, on the first states that can tell.
        part: Its `forward`.
    """
    if module not in _KNOWN:
        if not 0 < len(sites[0]) < states[..., 0].numel():
            return False  # with no such token, or no other, every part would pass
        _KNOWN[module] = _try_out(part, states, sites)
    return _KNOWN[module]


@torch.no_grad()
def _try_out(
    part: Callable[..., object], states: Float[Tensor, "batch seq d_model"], sites: Sites
) -> bool:
    others_zero = torch.zeros_like(states)
    others_zero[sites] = states[sites]
    whole, alone = part(states), part(others_zero)
    if not (isinstance(whole, Tensor) and isinstance(alone, Tensor)) or whole.shape != states.shape:
        return False
    tolerance = _TOLERANCE.get(whole.dtype, 0.0)
    scale = float(whole[sites].abs().max())
    if not math.isfinite(scale):
        return False  # an overflow tells nothing; whoever reads the numbers will say it
    return torch.allclose(whole[sites], alone[sites], rtol=0, atol=tolerance * scale)


def at_sites(
    part: Callable[..., Tensor], states: Float[Tensor, "batch seq d_model"], sites: Sites
) -> Float[Tensor, "batch seq d_model"]:
    """The part's output at these sites, zero elsewhere."""
    output = part(states[sites].unsqueeze(0))[0]
    return output.new_zeros(states.shape).index_put(sites, output)
