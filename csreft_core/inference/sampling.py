"""Drawing the next token by temperature, top-p and a seed of the call.

The global random state is neither read nor changed, so callers in other threads see nothing of it.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from csreft_core.errors import ConfigError
from csreft_core.inference.limits import MOST_SEED, MOST_TEMPERATURE

# In the order in which transformers applies them.
_OWN: dict[str, Any] = {
    "temperature": TemperatureLogitsWarper,
    "top_k": TopKLogitsWarper,
    "top_p": TopPLogitsWarper,
    "min_p": MinPLogitsWarper,
    "typical_p": TypicalLogitsWarper,
    "epsilon_cutoff": EpsilonLogitsWarper,
    "eta_cutoff": EtaLogitsWarper,
}
_SMALLEST = torch.finfo(torch.float64).tiny


class _GumbelMax(LogitsProcessor):
    r"""Adds Gumbel noise to the scores: their argmax is then a draw from their softmax.

    $\arg\max_v (s_v + g_v) \sim \mathrm{softmax}(s)$ with $g_v = -\ln e_v$ and $e_v$ exponential
    (Gumbel 1954; Maddison et al. 2014). Equal seeds give equal noise for each token of the
    vocabulary, so models that nearly agree draw the same token.
    """

    def __init__(self, seed: int) -> None:
        # On the CPU, so that a seed means the same on every device.
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(
        self,
        input_ids: Int[Tensor, "batch seq"],  # noqa: ARG002 - the interface of transformers
        scores: Float[Tensor, "batch vocab"],
    ) -> Float[Tensor, "batch vocab"]:
        noise = torch.empty(scores.shape, dtype=torch.float64)
        noise.exponential_(generator=self._generator).clamp_(min=_SMALLEST).log_().neg_()
        return scores + noise.to(scores)


def check_sampling(
    temperature: float = 0.0, top_p: float = 1.0, seed: int = 0, max_new_tokens: int = 1
) -> None:
    """See that settings can be used.

    Raises:
        ConfigError: one of them is out of its range; says which values are allowed.
    """
    if not 0 <= temperature <= MOST_TEMPERATURE:
        raise ConfigError(
            f"temperature is {temperature}; it must be 0 (the most likely token) to "
            f"{MOST_TEMPERATURE:g}"
        )
    if not 0 < top_p <= 1 or math.isnan(top_p):
        raise ConfigError(f"top-p is {top_p}; it must be above 0 and at most 1 (all tokens)")
    if not 0 <= seed <= MOST_SEED:
        raise ConfigError(f"seed is {seed}; it must be a whole number from 0 to {MOST_SEED}")
    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")


def sampler(temperature: float, top_p: float, seed: int) -> LogitsProcessorList:
    """What greedy decoding needs to draw its tokens instead; empty for temperature 0.

    Args:
        temperature: Divides the logits; 0 takes the most likely token, whatever the seed.
        top_p: Keeps the smallest set of most likely tokens with at least this probability, in
            (0, 1].
        seed: Equal seeds give equal answers.

    Raises:
        ConfigError: a value out of its range.
    """
    check_sampling(temperature, top_p, seed)
    steps = LogitsProcessorList()
    if temperature == 0:
        return steps
    steps.append(TemperatureLogitsWarper(float(temperature)))
    if top_p < 1:
        steps.append(TopPLogitsWarper(float(top_p)))
    steps.append(_GumbelMax(seed))
    return steps


def own_sampler(draws: Mapping[str, Any], seed: int) -> LogitsProcessorList:
    """As `sampler`, by the settings that a base brings (`decoding.scores_and_draws`)."""
    steps = LogitsProcessorList(make(draws[name]) for name, make in _OWN.items() if name in draws)
    steps.append(_GumbelMax(seed))
    return steps
