"""What must hold of a loaded base before anything is built on it, found out by trying it.

Five forwards and one backward of a few tokens. There is no table of model families. A base that
fails is refused here, with the reason, and not deep inside a training.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from csreft_core.base.blocks import Form, find_blocks, states_of, with_states
from csreft_core.base.decoding import token_ids
from csreft_core.base.library_calls import takes_places
from csreft_core.base.memory.exhausted import is_out_of_memory
from csreft_core.errors import UnsupportedModelError, first_line
from csreft_core.reft.positions import token_index

_N, _MORE = 5, 3  # tokens of the row that is tried, and of what stands before or after it
_ROUNDING = 16  # sums in another order differ in their last bits
_SHARE, _SHARE_OF_HALF = 1e-3, 0.3


@dataclass(frozen=True)
class Conduct:
    """What was seen of a model.

    Attributes:
        forms: Of each block.
        cuts_rows: Whether upper blocks see the last tokens alone where only their logits are asked
            for (`logits_to_keep`).
    """

    forms: tuple[Form, ...]
    cuts_rows: bool


def conduct_of(model: PreTrainedModel, name: str) -> Conduct:
    """Try a frozen model.

    Args:
        model: In evaluation mode.
        name: For messages.

    Raises:
        UnsupportedModelError: it cannot run, its blocks cannot be edited or trained through, or a
            row's result depends on what follows it, on padding, on other rows or on the cache.
    """
    trial = _Trial(model, name)
    forms, alone = trial.blocks()
    bound = trial.rows(alone)
    return Conduct(forms, trial.answers(bound))


class _Trial:
    """A short row of tokens, alone and with others before or after it."""

    def __init__(self, model: PreTrainedModel, name: str) -> None:
        self.model, self.name = model, name
        tokens = self._tokens()
        self.row, self.more = tokens[:_N], tokens[_N:]

    def _tokens(self) -> Int[Tensor, " token"]:
        """Tokens that differ, none of them for padding."""
        text = self.model.config.get_text_config()
        settings = (getattr(text, f"{kind}_token_id", None) for kind in ("pad", "bos", "eos"))
        special = {token for value in settings for token in token_ids(value)}
        candidates = range(text.vocab_size - 1, -1, -max(1, text.vocab_size // 32))
        tokens = [token for token in candidates if token not in special][: _N + _MORE]
        tokens = (tokens or [0]) * (_N + _MORE)
        return torch.tensor(tokens[: _N + _MORE], device=self.model.device)

    def refuse(self, what: str) -> UnsupportedModelError:
        """The error to raise."""
        return UnsupportedModelError(f"base.path {self.name!r} {what}")

    @contextmanager
    def _running(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise self.refuse(
                f"cannot {what}, not even without an adapter ({type(error).__name__}: "
                f"{first_line(error)}); its config.json does not fit what transformers expects, or "
                "it needs more than text: choose another model"
            ) from error

    def logits(self, ids: Int[Tensor, "row token"], **inputs: Any) -> Float[Tensor, "row token v"]:
        """Of a forward without cache."""
        with self._running("run"):
            logits = self.model(input_ids=ids, use_cache=False, **inputs).logits
        if logits.isnan().any():
            raise self.refuse(
                f"gives no numbers (nan) in {logits.dtype}, without an adapter; use "
                "base.precision fp32 or bf16, or copy its weights again"
            )
        return logits

    @torch.enable_grad()
    def blocks(self) -> tuple[tuple[Form, ...], Float[Tensor, "token v"]]:
        """Run the row alone: each block gives states that can be edited, and they count."""
        blocks = find_blocks(self.model)
        with _watch(blocks) as runs:
            logits = self.logits(self.row[None])
        expected = (1, len(self.row), self.model.config.get_text_config().hidden_size)
        if [layer for layer, *_ in runs] != [*range(len(blocks))]:
            raise self.refuse(
                f"runs its blocks in the order {', '.join(str(layer) for layer, *_ in runs)}; only "
                f"models that run each of their {len(blocks)} blocks once can be edited"
            )
        for layer, form, shape, takes_states, _ in runs:
            if shape != expected:
                raise self.refuse(
                    f"cannot be edited: its block {layer} gives {shape or form.kind} for one row "
                    f"of {len(self.row)} tokens, expected states of the shape {expected}"
                )
            if not takes_states:
                raise self.refuse(
                    f"cannot be edited: its block {layer} takes its states under another name than "
                    "hidden_states"
                )
        self._check_reached(logits, [zeros for *_, zeros in runs])
        return tuple(form for _, form, *_ in runs), logits[0].detach()

    def _check_reached(self, logits: Tensor, zeros: list[Tensor]) -> None:
        """Each block's output moves the logits, and its gradient can be computed."""
        gradients: Sequence[Tensor | None] = [None] * len(zeros)
        if logits.requires_grad:
            total = torch.where(logits.isfinite(), logits, 0).float().square().sum()
            gradients = torch.autograd.grad(total, zeros, allow_unused=True)
        for layer, gradient in enumerate(gradients):
            if gradient is None or not gradient.any():
                raise self.refuse(
                    f"cannot be trained: no gradient passes from its logits to its block {layer}"
                )

    @torch.no_grad()
    def rows(self, alone: Float[Tensor, "token v"]) -> float:
        """A row gives the same whatever follows it, is padded before it, or stands beside it.

        Returns:
            The gap that is allowed between two ways to the same logits.
        """
        n, more = len(self.row), len(self.more)
        longer = torch.cat([self.more, self.row])
        ids = torch.stack([torch.cat([self.row, self.more]), longer, longer])
        mask = torch.ones_like(ids)
        mask[1, :more] = 0
        logits = self.logits(ids, **self._inputs(mask))
        before, padded, after = logits[0, :n], logits[1, more:], logits[2, more:]
        bound = self._bound(alone, after)
        if _gap(before, alone) > bound:
            raise self._why(alone, ids[:1], bound)
        if _gap(padded, alone) > bound:
            raise self.refuse(
                "cannot read prompts of different lengths together: padding before a row changes "
                "its result, so training and answers would depend on the neighbours of a row; "
                "choose another model"
            )
        return bound

    @torch.no_grad()
    def answers(self, bound: float) -> bool:
        """`generate` goes on as one forward would, after padding and with its cache.

        Returns:
            Whether upper blocks saw less than the prompt, see `Conduct`.
        """
        longer = torch.cat([self.more, self.row])
        ids, mask = torch.stack([longer, longer]), torch.ones(2, len(longer), dtype=torch.long)
        mask[0, : len(self.more)] = 0
        generate: Any = self.model.generate
        with self._running("generate"), _watch(find_blocks(self.model)) as runs:
            out = generate(
                input_ids=ids,
                attention_mask=mask.to(ids.device),
                do_sample=False,
                num_beams=1,
                max_new_tokens=2,
                min_new_tokens=2,
                pad_token_id=int(self.more[0]),
                output_logits=True,
                return_dict_in_generate=True,
            )
        whole = torch.cat([self.row, out.sequences[0, len(longer) : -1]])
        expected = self.logits(whole[None])[0, -2:]
        if _gap(torch.stack([step[0] for step in out.logits]).to(expected), expected) > bound:
            raise self.refuse(
                "answers otherwise in generate, with padding and a cache, than its own forward "
                "says; choose another model, or another version of transformers"
            )
        prompts = runs[: len(find_blocks(self.model))]
        return any(shape[1:2] != ids.shape[1:] for _, _, shape, *_ in prompts)

    def _bound(self, alone: Tensor, after: Tensor) -> float:
        """What rounding explains, or a small share of what tokens before the row change."""
        full = alone.dtype == torch.float32 and not getattr(self.model, "is_quantized", False)
        scale = float(torch.where(alone.isfinite(), alone.abs(), 0).max())
        rounding = _ROUNDING * torch.finfo(alone.dtype).eps * scale
        return max(rounding, (_SHARE if full else _SHARE_OF_HALF) * _gap(after, alone))

    def _inputs(self, mask: Int[Tensor, "row token"]) -> dict[str, Tensor]:
        """The mask, and the places as an attachment gives them."""
        inputs = {"attention_mask": mask}
        if takes_places(self.model):
            inputs["position_ids"] = token_index(mask.bool()).clamp(min=0)
        return inputs

    def _why(self, alone: Tensor, longer: Int[Tensor, "row token"], bound: float) -> Exception:
        """Why a row changes: by chance, its places, what follows it, or what stands beside it."""
        n = len(self.row)
        if _gap(self.logits(self.row[None])[0], alone) > bound:
            return self.refuse("gives another result each time that it runs; choose another model")
        mask = torch.ones_like(self.row[None])
        if _gap(self.logits(self.row[None], **self._inputs(mask))[0], alone) > bound:
            return self.refuse(
                "does not count the places of its tokens from 0, as transformers does when it "
                "generates: its answers would not be those of its own forward; choose another model"
            )
        if _gap(self.logits(longer)[0, :n], alone) > bound:
            return self.refuse(
                "is an encoder: its tokens see those that come after them; a decoder-only causal "
                "language model is needed"
            )
        return self.refuse(
            "gives a row another result beside other rows of a batch; choose another model"
        )


def _gap(one: Tensor, other: Tensor) -> float:
    """Largest difference; a token that a model rules out is minus infinity in both."""
    return float(torch.where(one == other, 0, one - other).abs().max())


_Seen = list[tuple[int, Form, tuple[int, ...], bool, Tensor]]


@contextmanager
def _watch(blocks: nn.ModuleList) -> Iterator[_Seen]:
    """Notes each run of a block: layer, form, shape, whether it takes states, what is added.

    A zero is added to the states, whose gradient says what an edit would change.
    """
    runs: _Seen = []

    def watch(layer: int, _block: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        states = states_of(output)
        takes = isinstance(args[0] if args else kwargs.get("hidden_states"), Tensor)
        if not isinstance(states, Tensor):
            runs.append((layer, Form.of(output), (), takes, torch.zeros(())))
            return output
        zeros = torch.zeros_like(states, requires_grad=True)
        runs.append((layer, Form.of(output), tuple(states.shape), takes, zeros))
        return with_states(output, states + zeros)

    handles = [
        block.register_forward_hook(partial(watch, layer), with_kwargs=True)
        for layer, block in enumerate(blocks)
    ]
    try:
        yield runs
    finally:
        for handle in handles:
            handle.remove()
