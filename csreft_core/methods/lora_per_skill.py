"""A LoRA for each skill on the same linear layers, mixed by the router of CS-ReFT; O-LoRA."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from csreft_core.attachment.passes import Pass, in_float32
from csreft_core.base.load import Base
from csreft_core.errors import ConfigError
from csreft_core.methods.changed_base import (
    ChangedBase,
    MethodSpec,
    in_and_out,
    key,
    linear_layers,
    remover,
)
from csreft_core.reft.router import router_of


class LoRAPerSkill(ChangedBase):
    r"""$W' x = W x + s \sum_i \alpha_i B_i A_i x$ with the gates $\alpha$ of the prompt.

    $A_i$ is r × in, $B_i$ is out × r and 0 at the start. With `method.penalty` the loss has
    O-LoRA's term, $\sum_{i<j} \|A_i A_j^\top\|_1$ summed over the layers (Wang et al. 2023,
    arXiv 2310.14152; its released code has the L1 norm, and trains one skill after another, where
    here all are trained together).

    Raises:
        ConfigError: no skills, or a router above the embedding, where the gates come too late.
    """

    def __init__(self, spec: MethodSpec, base: Base, generator: torch.Generator) -> None:
        super().__init__(spec)
        router = spec.router
        if not spec.skills:
            raise ConfigError("a LoRA for each skill needs skill names; label the rows")
        if router.layer != -1:
            raise ConfigError(
                f"router.layer is {router.layer}, but method 'lora_per_skill' changes all layers "
                "and needs its gates before them; set it to -1"
            )
        self.names, self.n_subspaces = spec.skills, len(spec.skills)
        self.penalty_weight = spec.method.penalty
        self._linears = linear_layers(base, spec.blocks)
        k, r = self.n_subspaces, spec.method.size
        for name, linear in self._linears.items():
            n_in, n_out = in_and_out(linear)
            bound = 1 / math.sqrt(n_in)
            A = torch.empty(k, r, n_in).uniform_(-bound, bound, generator=generator)
            self.trained[f"{key(name)}/A"] = nn.Parameter(A)
            self.trained[f"{key(name)}/B"] = nn.Parameter(torch.zeros(k, r, n_out))
        if router.gates == "learned" or router.supervision > 0:
            self.router = router_of(
                router, d_model=spec.d_model, n_subspaces=k, generator=generator
            )
        self.to(base.device)

    def change(self, current_pass: Callable[[], Any]) -> Callable[[], None]:
        """Hook the linear layers."""
        return remover(
            [
                linear.register_forward_hook(self._hook(key(name), current_pass))
                for name, linear in self._linears.items()
            ]
        )

    def _hook(self, name: str, current_pass: Callable[[], Any]) -> Callable[..., Tensor]:
        def on_linear(_linear: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            gates = _gates_of(current_pass(), args[0])
            x = args[0].view(*gates.shape[:2], -1)  # some blocks flatten rows and tokens
            with in_float32(x.device):
                addition = self.addition(name, x.float(), gates)
            return output + addition.to(output).view_as(output)

        return on_linear

    def addition(
        self, name: str, x: Float[Tensor, "batch seq n_in"], gates: Float[Tensor, "batch seq k"]
    ) -> Float[Tensor, "batch seq n_out"]:
        """The gated sum of one linear layer."""
        A, B = self.trained[f"{name}/A"], self.trained[f"{name}/B"]
        coordinates = (x @ A.flatten(0, 1).mT).unflatten(-1, A.shape[:2])
        products = coordinates * gates.to(x).unsqueeze(-1)
        return self.spec.method.scale * products.flatten(-2) @ B.flatten(0, 1)

    def overlap_penalty(self) -> Float[Tensor, ""]:
        """See the class."""
        overlaps = []
        for name in self._linears:
            A = self.trained[f"{key(name)}/A"]
            products = torch.einsum("ird,jsd->ijrs", A, A).abs().sum((2, 3))
            overlaps.append(products.triu(diagonal=1).sum())
        return torch.stack(overlaps).sum()

    def counts(self) -> dict[str, int]:
        """See `Tuning.counts`."""
        router = 0 if self.router is None else sum(p.numel() for p in self.router.parameters())
        return {"router": router, **super().counts()}


def _gates_of(forward_pass: Pass, x: Tensor) -> Float[Tensor, "batch seq k"]:
    """The gates of the tokens in x: of all, or of those alone whose logits are wanted.

    The last block's feed-forward part may see the wanted tokens only, as one row.
    """
    gates = forward_pass.token_gates()
    if forward_pass.logits_at is None or x.shape[:-1].numel() == gates.shape[:2].numel():
        return gates
    rows, columns = (at.to(gates.device) for at in forward_pass.logits_at)
    return gates[rows, columns].unsqueeze(0)
