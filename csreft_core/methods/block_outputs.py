"""Methods that act on the output of whole blocks: RED, series and parallel adapters."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from csreft_core.attachment.passes import in_float32
from csreft_core.base.blocks import states_of, with_states
from csreft_core.base.load import Base
from csreft_core.methods.changed_base import ChangedBase, MethodSpec, remover

_States = Float[Tensor, "batch seq d_model"]


class _BlockOutputs(ChangedBase):
    """New output of a block from its input and its output, in float32."""

    def __init__(self, spec: MethodSpec, base: Base, generator: torch.Generator) -> None:
        super().__init__(spec)
        self._blocks = {block: base.blocks[block] for block in spec.blocks}
        for block in spec.blocks:
            for name, start in self.start(generator).items():
                self.trained[f"{block}/{name}"] = nn.Parameter(start.to(base.device))

    def start(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The parameters of one block."""
        raise NotImplementedError

    def output(self, block: int, h: _States, out: _States) -> _States:
        """The block's new output.

        Args:
            block: Which block.
            h: Its input.
            out: Its own output.
        """
        raise NotImplementedError

    def change(self, current_pass: Callable[[], Any]) -> Callable[[], None]:  # noqa: ARG002
        """Hook the blocks."""
        return remover(
            [
                module.register_forward_hook(self._hook(block), with_kwargs=True)
                for block, module in self._blocks.items()
            ]
        )

    def _hook(self, block: int) -> Callable[..., Any]:
        def on_block(_module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
            own_input = args[0] if args else kwargs["hidden_states"]
            out = states_of(output)
            with in_float32(out.device):
                new = self.output(block, own_input.float(), out.float()).to(out)
            return with_states(output, new)

        return on_block


class RED(_BlockOutputs):
    r"""Representation editing: $h' = s \odot h + b$ on the output of each block, at all tokens.

    $s = 1$ and $b = 0$ at the start; $2 d$ parameters a block (Wu et al. 2024, arXiv 2402.15179).
    """

    def start(self, generator: torch.Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """See `_BlockOutputs.start`."""
        d = self.spec.d_model
        return {"s": torch.ones(d), "b": torch.zeros(d)}

    def output(self, block: int, h: _States, out: _States) -> _States:  # noqa: ARG002
        """See the class."""
        return self.trained[f"{block}/s"] * out + self.trained[f"{block}/b"]


class _Adapter(_BlockOutputs):
    r"""$\mathrm{up}(x) = U\,\mathrm{ReLU}(D x + d) + u$ with m hidden units; $U = 0$ at the start.

    $2 d m + m + d$ parameters a block.
    """

    def start(self, generator: torch.Generator) -> dict[str, Tensor]:
        """See `_BlockOutputs.start`; D and its bias as PyTorch starts a linear layer."""
        d, m = self.spec.d_model, self.spec.method.size
        bound = 1 / math.sqrt(d)
        return {
            "down": torch.empty(m, d).uniform_(-bound, bound, generator=generator),
            "down_bias": torch.empty(m).uniform_(-bound, bound, generator=generator),
            "up": torch.zeros(d, m),
            "up_bias": torch.zeros(d),
        }

    def bottleneck(self, block: int, x: _States) -> _States:
        """See the class."""
        weight = {n: self.trained[f"{block}/{n}"] for n in ("down", "down_bias", "up", "up_bias")}
        hidden = F.relu(F.linear(x, weight["down"], weight["down_bias"]))
        return F.linear(hidden, weight["up"], weight["up_bias"])


class SeriesAdapter(_Adapter):
    """A bottleneck on the output of each block, with a residual connection (Houlsby et al. 2019).

    The original has one inside the block as well, whose place no module tree tells.
    """

    def output(self, block: int, h: _States, out: _States) -> _States:  # noqa: ARG002
        """See the class."""
        return out + self.bottleneck(block, out)


class ParallelAdapter(_Adapter):
    """A bottleneck beside each block: it reads the block's input (He et al. 2022)."""

    def output(self, block: int, h: _States, out: _States) -> _States:
        """See the class."""
        return out + self.bottleneck(block, h)
