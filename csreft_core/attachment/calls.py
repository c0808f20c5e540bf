"""What a call of the base asks for: where the prompt ends, and the pass to make.

Calls inside `generate` share a `Generation`, which knows the prompts and counts what was seen: a
call that does not continue them is refused, whatever made it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from csreft_core.attachment.passes import Pass, Request
from csreft_core.base.library_calls import (
    Cached,
    Call,
    Prompts,
    refuse_several_texts,
    refuse_tracing,
)
from csreft_core.errors import ConfigError
from csreft_core.reft.positions import token_index


@dataclass
class Generation:
    """One call of `generate`, from its first forward on.

    A forward sees either whole rows, which begin with the prompts that were given, or on a
    key-value cache what comes after them. Such steps are alike: they edit every token that they
    see, or none. So the pass of the first is used again.

    Attributes:
        prompts: What `generate` was given.
        pass_to: Takes the pass of the first forward.
        request: Whose generation it is; calls under another request do not belong to it.
        tokens: The prompts, one row each, also if beams or samples share one.
        real: Which of these tokens are no padding.
        n_seen: Tokens of a row, padding included, that the last forward had behind it.
        gates: Of each row of the first forward.
    """

    prompts: Prompts
    pass_to: list[Pass] | None = None
    request: Request | None = None
    tokens: Tensor | None = None
    real: Bool[Tensor, "prompt seq"] | None = None
    n_seen: int = 0
    gates: Float[Tensor, "row k"] | None = None
    step: Pass | None = None
    _step_cache: Any = None
    _step_name: str = ""
    _step_length: Callable[[], Any] | None = None

    def same_step(self, current: Request, inputs: dict[str, Any]) -> Pass | None:
        """The pass of an earlier step on the cache, if this one is just like it; else None."""
        step, tokens = self.step, inputs.get("input_ids")
        if step is None or tokens is None or step.request is not current:
            return None
        if tokens.shape != step.index.shape or inputs.get(self._step_name) is not self._step_cache:
            return None
        if self._step_length is not None and self._step_length() != self.n_seen:
            return None
        n_seen, mask = self.n_seen + tokens.shape[1], inputs.get("attention_mask")
        if mask is not None and mask.shape != (len(tokens), n_seen):
            return None
        self.n_seen = n_seen
        return step

    def new_pass(self, current: Request, call: Call) -> Pass:
        """The pass of a forward that edits or has gates.

        Raises:
            ConfigError: the forward does not continue the prompts.
        """
        self.step = None
        past = call.past()
        if self.tokens is None:
            self._begin(current, call, past)
            past = 0
        past = self.n_seen if past is None else past
        return self._step(call, past) if past else self._whole(call)

    def _begin(self, current: Request, call: Call, past: int | None) -> None:
        if past != 0:
            content = "tokens" if past is None else f"{past} tokens"
            raise ConfigError(
                f"generate was given a key-value cache that holds {content} already, whose edits "
                "are not known; give the whole prompt and no filled cache"
            )
        tokens, rows = self.prompts.tokens, len(call.tokens)
        self.tokens = tokens = call.tokens if tokens is None else tokens.to(call.tokens.device)
        if not len(tokens) or rows % len(tokens):
            raise ConfigError(
                f"generate was given {len(tokens)} prompts and runs the base on {rows} rows, which "
                "cannot be told apart; give the prompts one at a time"
            )
        self.request = current
        self.real = call.real(call.tokens.shape[1])[:: rows // len(tokens), : tokens.shape[1]]
        refuse_several_texts(call, call.real(call.tokens.shape[1]))

    def _whole(self, call: Call) -> Pass:
        """Rows from their first token on."""
        assert self.tokens is not None
        assert self.real is not None
        assert self.request is not None
        rows, width = call.tokens.shape[:2]
        real = call.real(width)
        if not self.n_seen and width < self.tokens.shape[1]:
            raise ConfigError(
                f"generate sent {width} of {self.tokens.shape[1]} prompt tokens at once; prefill "
                "in chunks is not supported, leave prefill_chunk_size unset"
            )
        # A cache that nobody knows would make a row of one new token look like a prompt of one.
        is_lost = width < self.n_seen or (width == self.n_seen and call.use_cache is True)
        if is_lost or not self._has_the_prompts(call.tokens, real):
            raise ConfigError(
                "inside generate the base was called on rows that do not begin with the prompts "
                "that generate was given: an unconditional prompt of guidance_scale, rows that "
                "other code has moved, or a key-value cache that is not known (use_cache=False "
                "does without); give other rows a call of their own"
            )
        index, length = token_index(real), self._of_rows(self.real.sum(1), rows)
        forward_pass = Pass(self.request, index, _before(index, length), length)
        if self.gates is not None and not _per_token(self.request):
            forward_pass.gates = self._of_rows(self.gates, rows)
        self.n_seen = width
        return forward_pass

    def _step(self, call: Call, past: int) -> Pass:
        """Tokens after the prompts, on a key-value cache."""
        assert self.tokens is not None
        assert self.real is not None
        assert self.request is not None
        assert self.request.adapter is not None
        rows, width = call.tokens.shape[:2]
        if not self.tokens.shape[1] <= past <= self.n_seen:
            raise ConfigError(
                f"the key-value cache holds {past} tokens, but generate had a prompt of "
                f"{self.tokens.shape[1]} and has run the base on {self.n_seen}; leave "
                "prefill_chunk_size unset, or use use_cache=False"
            )
        generated = self.request.adapter.positions.generated
        alike = len(self.tokens) == 1 or not (generated or self._has_silent_padding(call))
        if self.prompts.custom and not alike:
            raise ConfigError(
                "custom_generate may move the rows of a batch, and on a key-value cache a row "
                "cannot be told to be whose prompt's; give one prompt at a time, or use_cache=False"
            )
        length = self._of_rows(self.real.sum(1), rows)
        if call.mask is None:
            after = torch.arange(width, device=length.device) + past - self.tokens.shape[1]
            index = length.unsqueeze(1) + after
        else:
            index = token_index(call.real(past + width))[:, past:]
        assert self.gates is not None
        forward_pass = Pass(self.request, index, torch.zeros_like(index, dtype=torch.bool), length)
        forward_pass.gates = self._of_rows(self.gates, rows)
        forward_pass.skip, forward_pass.repeats = not generated, not torch.is_grad_enabled()
        self.n_seen = past + width
        self._note_step(forward_pass, call.cached)
        return forward_pass

    def _has_silent_padding(self, call: Call) -> bool:
        assert self.real is not None
        return call.mask is None and not bool(self.real.all())

    def _note_step(self, forward_pass: Pass, cached: Cached | None) -> None:
        assert cached is not None
        self.step, self._step_cache, self._step_name = forward_pass, cached.cache, cached.name
        self._step_length = cached.counter()

    def _has_the_prompts(self, tokens: Tensor, real: Bool[Tensor, "row total"]) -> bool:
        assert self.tokens is not None
        assert self.real is not None
        rows, (n, width) = len(tokens), self.tokens.shape[:2]
        if rows % n or tokens.ndim != self.tokens.ndim or tokens.shape[1] < width:
            return False
        same = tokens[:, :width] == self.tokens.repeat_interleave(rows // n, 0)
        alike = real[:, :width] == self.real.repeat_interleave(rows // n, 0)
        return bool(same.all() & alike.all())

    def _of_rows(self, values: Tensor, rows: int) -> Tensor:
        """Values of the prompts, or of the rows of the first forward, for the rows of this one."""
        assert self.tokens is not None
        if len(values) == rows:
            return values
        if len(self.tokens) == 1:
            return values[:1].expand(rows, *values.shape[1:])
        if rows % len(values):
            raise ConfigError(
                f"generate was given {len(self.tokens)} prompts and began with {len(values)} rows; "
                f"now there are {rows}, which cannot be told apart; give one prompt at a time"
            )
        return values.repeat_interleave(rows // len(values), 0)


def _per_token(current: Request) -> bool:
    assert current.adapter is not None
    return current.adapter.spec.router.granularity == "per_token"


def _before(
    index: Int[Tensor, "batch seq"], length: Int[Tensor, " batch"]
) -> Bool[Tensor, "batch seq"]:
    return (index >= 0) & (index < length.unsqueeze(1))


def new_pass(
    current: Request, call: Call, prompt_mask: Tensor | None, generation: Generation | None
) -> Pass:
    """The pass of one forward, before any block has run.

    Args:
        current: Who calls.
        call: The forward.
        prompt_mask: Which tokens are the prompt; outside `generate`, None means all real ones.
        generation: The call of `generate` that it belongs to, if it does.

    Raises:
        ConfigError: which tokens are whose prompt cannot be known, or a form of call that is not.
    """
    if current.adapter is None:
        return _bare_pass(current, call, prompt_mask)
    refuse_tracing()
    within = generation is not None and generation.request in (None, current)
    if generation is not None and within and prompt_mask is None:
        return generation.new_pass(current, call)
    return _plain_pass(current, call, prompt_mask)


def _bare_pass(current: Request, call: Call, prompt_mask: Tensor | None) -> Pass:
    """Nothing is edited: states may be captured, and places are counted."""
    width, past = call.tokens.shape[1], call.past() or 0
    real = call.mask if call.mask is not None else call.real(past + width)
    index, prompt = token_index(real)[:, -width:], real
    if prompt_mask is not None:
        prompt = real & prompt_mask.to(real)
    prompt = prompt[:, -width:]
    return Pass(current, index, prompt, prompt.sum(1))


def _plain_pass(current: Request, call: Call, prompt_mask: Tensor | None) -> Pass:
    """Outside `generate`, all real tokens are the prompt unless the caller says which are."""
    if call.past() != 0:
        raise ConfigError(
            "a forward on a filled key-value cache outside `generate` does not see its prompt; "
            "use generate, or pass the whole sequence"
        )
    real = call.real(call.tokens.shape[1])
    refuse_several_texts(call, real)
    index = token_index(real)
    if prompt_mask is None:
        return Pass(current, index, real, real.sum(1))
    if prompt_mask.shape != real.shape:
        raise ConfigError(
            f"prompt_mask must have one value for each token, {list(real.shape)}, got "
            f"{list(prompt_mask.shape)}"
        )
    prompt = real & prompt_mask.to(real)
    length = prompt.sum(1)
    if not torch.equal(prompt, _before(index, length)):
        raise ConfigError(
            "prompt_mask must mark the first real tokens of each row; a prompt with holes, or one "
            "that begins later, is not supported"
        )
    return Pass(current, index, prompt, length)
