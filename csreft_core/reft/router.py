"""Router: from prompt features to one gate per subspace; its losses and its regularisers.

No I/O. Randomness only at construction, from the generator that is passed in.
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from csreft_core.config import RouterConfig

RouterInput = Literal["first_token", "last_prompt_token", "mean_prompt"]
GateKind = Literal["sigmoid", "softmax", "hard", "top_k"]


class Router(nn.Module):
    r"""A small network that reads the prompt and sets the gates (CS-ReFT, sections 3.2 and 4).

    $\alpha = g(\mathrm{MLP}(x) / T) \in [0, 1]^k$ with $x$ a feature of the prompt alone. In a
    causal decoder the first token is the same for every prompt with a fixed beginning, so the
    paper's input `first_token` gives every prompt the same gates.

    Args:
        d_model: Width d of the states it reads.
        n_subspaces: k.
        input: Which prompt tokens: `first_token`, `last_prompt_token` or `mean_prompt`.
        hidden: Width of the hidden layer behind an RMS norm, or `paper`: d -> d/2 -> k, no norm.
        gate: `sigmoid`; `softmax`; `hard`, 0 or 1 with the sigmoid's gradient; `top_k`, the k'
            largest sigmoid gates and zero elsewhere.
        top_k: k' of `top_k`.
        threshold: A sigmoid gate above it is open.
        temperature: T, divides the logits.
        per_token: One gate vector for each prompt token, from the prompt up to that token.
        standardize: The feature is centred and scaled by the training prompts, see `fit_scale`.
        generator: Source of the start.
    """

    mean: Tensor
    spread: Tensor

    def __init__(
        self,
        *,
        d_model: int,
        n_subspaces: int,
        generator: torch.Generator,
        input: RouterInput = "mean_prompt",
        hidden: int | Literal["paper"] = 32,
        gate: GateKind = "sigmoid",
        top_k: int = 1,
        threshold: float = 0.5,
        temperature: float = 1.0,
        per_token: bool = False,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        width = d_model // 2 if hidden == "paper" else hidden
        # The type is named: while another thread loads a base, torch's default can be its type.
        fp32 = torch.float32
        norm = nn.RMSNorm(d_model, eps=1e-6, dtype=fp32)
        self.norm = nn.Identity() if hidden == "paper" else norm
        self.standardize = standardize
        if standardize:
            self.register_buffer("mean", torch.zeros(d_model, dtype=fp32))
            self.register_buffer("spread", torch.ones(d_model, dtype=fp32))
        self.fc1 = nn.Linear(d_model, width, dtype=fp32)
        self.fc2 = nn.Linear(width, n_subspaces, dtype=fp32)
        for layer in (self.fc1, self.fc2):
            bound = 1 / math.sqrt(layer.in_features)
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
        self.input, self.gate, self.top_k = input, gate, min(top_k, n_subspaces)
        self.threshold, self.temperature, self.per_token = threshold, temperature, per_token

    def features(
        self,
        states: Float[Tensor, "batch seq d_model"],
        prompt_mask: Bool[Tensor, "batch seq"],
    ) -> Float[Tensor, "batch seq d_model"] | Float[Tensor, "batch d_model"]:
        """What the router reads: prompt tokens only, never padding and never the answer.

        Per token, position s reads the prompt up to s: its running mean, its last token so far or
        its first token. Positions after the prompt keep the value of the last prompt token.
        """
        states = states.float()
        seq = states.shape[1]
        steps = torch.arange(seq, device=states.device)
        if self.input == "mean_prompt":
            weights = prompt_mask.to(states.dtype).unsqueeze(-1)
            if not self.per_token:
                return (states * weights).sum(1) / weights.sum(1).clamp(min=1)
            return (states * weights).cumsum(1) / weights.cumsum(1).clamp(min=1)
        if self.input == "first_token":
            index = prompt_mask.to(torch.int64).argmax(1, keepdim=True).expand(-1, seq)
        else:
            index = torch.where(prompt_mask, steps, 0).cummax(1).values
        if not self.per_token:
            index = index[:, -1:]
        chosen_states = states.gather(1, index.unsqueeze(-1).expand(-1, -1, states.shape[2]))
        return chosen_states if self.per_token else chosen_states[:, 0]

    @torch.no_grad()
    def fit_scale(self, features: Float[Tensor, "prompt d_model"]) -> None:
        r"""Take $\mu$ and $\sigma$ of $(x - \mu) / \sigma$ from prompts, for each dimension.

        In a large base the states of all prompts have nearly the same large part, which says
        nothing about a prompt and drowns what does. A dimension that never varies stays as it is.
        """
        self.mean.copy_(features.mean(0))
        spread = features.std(0, correction=0)
        self.spread.copy_(torch.where(spread > 0, spread, torch.ones_like(spread)))

    def forward(self, features: Float[Tensor, "*lead d_model"]) -> Float[Tensor, "*lead k"]:
        """Router logits, already divided by the temperature."""
        if self.standardize:
            features = (features - self.mean) / self.spread
        return self.fc2(F.relu(self.fc1(self.norm(features)))) / self.temperature

    def gates(self, logits: Float[Tensor, "*lead k"]) -> Float[Tensor, "*lead k"]:
        """Gates in [0, 1] from logits."""
        if self.gate == "softmax":
            return logits.softmax(-1)
        soft = logits.sigmoid()
        if self.gate == "hard":
            # The forward value is exactly 0 or 1; the gradient is the sigmoid's.
            return self.binary(soft) + (soft - soft.detach())
        if self.gate == "top_k":
            mask = torch.zeros_like(soft).scatter(-1, soft.topk(self.top_k, -1).indices, 1.0)
            return soft * mask
        return soft

    def binary(self, gates: Float[Tensor, "*lead k"]) -> Float[Tensor, "*lead k"]:
        """1 where a gate is above the threshold, else 0 (CS-ReFT, section 4: 0.5)."""
        return (gates > self.threshold).to(gates.dtype)


def router_of(
    settings: RouterConfig, *, d_model: int, n_subspaces: int, generator: torch.Generator
) -> Router:
    """A fresh router as the config says."""
    return Router(
        d_model=d_model,
        n_subspaces=n_subspaces,
        input=settings.input,
        hidden=settings.hidden,
        gate=settings.gate,
        top_k=settings.top_k,
        threshold=settings.threshold,
        temperature=settings.temperature,
        per_token=settings.granularity == "per_token",
        standardize=settings.standardize,
        generator=generator,
    )


def supervision_loss(
    logits: Float[Tensor, "batch k"], labels: Float[Tensor, "batch k"], gate: GateKind
) -> Float[Tensor, ""]:
    """How far the router is from the skill labels, in nats.

    Mean binary cross-entropy of independent gates; for `softmax`, the cross-entropy with the
    labels shared out over a row's skills.
    """
    if gate == "softmax":
        return F.cross_entropy(logits, labels / labels.sum(-1, keepdim=True).clamp(min=1))
    return F.binary_cross_entropy_with_logits(logits, labels)


def binary_entropy(gates: Float[Tensor, "*lead k"]) -> Float[Tensor, ""]:
    r"""Mean of $-\alpha\ln\alpha - (1-\alpha)\ln(1-\alpha)$ over all gates, in [0, ln 2] nats."""
    p = gates.clamp(0, 1)
    return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).mean()


def omega(
    gates: Float[Tensor, "batch k"], kind: Literal["l1", "entropy", "balance"]
) -> Float[Tensor, ""]:
    r"""The regulariser $\Omega(\alpha)$ that the paper leaves open (CS-ReFT, section 3.3).

    `l1`: mean gate, in [0, 1]. `entropy`: mean binary entropy, in [0, ln 2], lowest for gates of 0
    or 1. `balance`: $\ln k - H(\bar\alpha / \sum\bar\alpha)$, in [0, ln k], 0 when all subspaces
    are used alike.
    """
    if kind == "l1":
        return gates.abs().mean()
    if kind == "entropy":
        # xlogy has no finite slope at 0 and 1, where saturated gates arrive in float32.
        return binary_entropy(gates.clamp(1e-6, 1 - 1e-6))
    usage = gates.mean(0)
    # Nor at a share of 0, where a subspace ends that no hard gate opens.
    share = (usage / usage.sum().clamp(min=1e-12)).clamp(min=1e-9)
    return math.log(gates.shape[-1]) + torch.xlogy(share, share).sum()
