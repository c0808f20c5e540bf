"""What a call of the base asks for: its arguments by name, where the prompt ends, the pass to make.

Calls inside `generate` share a `Generation`: the first one sees the prompt, the others go on.
"""

import inspect
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from csreft_core.errors import ConfigError
from csreft_core.passes import Pass, Request, plain_pass, real_tokens
from csreft_core.positions import token_index


@dataclass
class Generation:
    """One call of `generate`: its prompt is what the first forward sees.

    Steps on the key-value cache are alike: they edit every token that they see, or none. So the
    `step` of the first is used again.
    """

    width: int
    pass_to: list[Pass] | None = None
    prompt_length: Tensor | None = None
    gates: Tensor | None = None
    step: Pass | None = None

    def same_step(self, current: Request, inputs: dict[str, Any]) -> Pass | None:
        """The pass of an earlier step on the cache that asks for the same, or None."""
        step, tokens = self.step, inputs.get("input_ids")
        if step is None or tokens is None or step.request is not current:
            return None
        return step if tokens.shape == step.index.shape else None


def new_pass(
    current: Request,
    inputs: dict[str, Any],
    prompt_mask: Tensor | None,
    generation: Generation | None,
) -> Pass:
    """The pass of one forward, before any block has run.

    Args:
        current: Who calls.
        inputs: The arguments of the forward by name.
        prompt_mask: Which tokens are the prompt; outside `generate`, None means all real ones.
        generation: The call of `generate` that it belongs to, if it does.

    Raises:
        ConfigError: the prompt of `generate` comes in chunks, or a mask that is not supported.
    """
    tokens = inputs.get("input_ids")
    tokens = inputs.get("inputs_embeds") if tokens is None else tokens
    assert isinstance(tokens, Tensor), "the base was called without input_ids or inputs_embeds"
    rows, width = tokens.shape[:2]
    mask = real_tokens(inputs, rows, width, tokens.device)
    index = token_index(mask)[:, -width:]
    if generation is None:
        return plain_pass(current, mask, index, prompt_mask)
    if generation.prompt_length is None:
        if width != generation.width:
            raise ConfigError(
                f"generate sent {width} of {generation.width} prompt tokens at once; prefill "
                "in chunks is not supported, leave prefill_chunk_size unset"
            )
        generation.prompt_length = mask.sum(1)
    length = generation.prompt_length
    this = Pass(
        request=current,
        index=index,
        prompt_mask=(index >= 0) & (index < length.unsqueeze(1)),
        prompt_length=length,
    )
    if generation.gates is not None and current.adapter is not None:
        _go_on(this, generation, whole=mask.shape[1] == width)
    return this


def _go_on(this: Pass, generation: Generation, *, whole: bool) -> None:
    """After the prompt: gates stay, and a step on the cache is like the one before."""
    adapter = this.request.adapter
    assert adapter is not None
    if not (whole and adapter.spec.router.granularity == "per_token"):
        this.gates = generation.gates
    this.skip = not (whole or adapter.positions.generated)
    this.repeats = not (whole or torch.is_grad_enabled())
    generation.step = None if whole else this


def named_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a forward by name."""
    if not args:
        return kwargs
    inputs = _signature(type(model)).bind_partial(None, *args, **kwargs).arguments
    return {**inputs, **inputs.pop("kwargs", {})}


def lacks_places(model: nn.Module, inputs: dict[str, Any]) -> bool:
    """Whether the model takes the places of the tokens and is not given any."""
    if inputs.get("position_ids") is not None:
        return False
    return "position_ids" in _signature(type(model)).parameters


def prompt_width(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Prompt tokens that `generate` is given, padding included."""
    named = [kwargs.get(name) for name in ("inputs_embeds", "inputs", "input_ids")]
    for value in (*args[:1], *named):
        if isinstance(value, Tensor):
            return value.shape[1]
    return 1


@lru_cache
def _signature(model: type[nn.Module]) -> inspect.Signature:
    return inspect.signature(model.forward)
