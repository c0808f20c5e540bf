"""A base with an attached adapter as a model of EleutherAI's lm_eval, which is optional.

lm_eval's own `HFLM` takes the attached model as it is, and `generate_until` needs no more. For
log-likelihoods it sends context and continuation as one row; only the caller knows where the
context ends, so this class says so. Read while lm_eval 0.4.13 was at hand.
"""

# lm_eval registers the class through a decorator without types, which hides what it inherits.
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from csreft_core.attachment.attach import Attachment

# As lm_eval hands them over: texts, tokens of the context, tokens of the continuation.
_Request = tuple[Any, list[int], list[int]]
_Contexts = dict[tuple[int, ...], int]


class AttachedHFLM(HFLM):
    """`HFLM` that edits the context alone, as in training, never the scored continuation.

    With closed gates each result is that of `HFLM` on the bare base, bit for bit. To evaluate:
    `lm_eval.simple_evaluate(model=AttachedHFLM(attachment), tasks=[...])`.

    Args:
        attachment: A base with an adapter, `attach(base, adapter, gates=...)`.
        settings: Of `HFLM`, such as `batch_size` and `max_length`.
    """

    def __init__(self, attachment: Attachment, **settings: Any) -> None:
        base = attachment.base
        super().__init__(pretrained=base.model, tokenizer=base.tokenizer, **settings)  # pyright: ignore[reportArgumentType]
        self._contexts: _Contexts = {}

    def _loglikelihood_tokens(
        self,
        requests: Sequence[_Request],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """Scores in the order of the requests.

        A row is known by its tokens. Requests with equal rows but contexts of different lengths go
        one after the other, for their edits differ.
        """
        waves: list[tuple[_Contexts, list[int]]] = []
        for place, (_, context, continuation) in enumerate(requests):
            row = (context + continuation)[-(self.max_length + 1) :][:-1]
            key, length = _without_padding(row), len(row) + 1 - len(continuation)
            for contexts, places in waves:
                if contexts.setdefault(key, length) == length:
                    places.append(place)
                    break
            else:
                waves.append(({key: length}, [place]))
        scores: dict[int, tuple[float, bool]] = {}
        for contexts, places in waves:
            self._contexts = contexts
            try:
                wave_scores = super()._loglikelihood_tokens(
                    [requests[place] for place in places],
                    disable_tqdm=disable_tqdm,
                    override_bs=override_bs,  # pyright: ignore[reportArgumentType]
                )
            finally:
                self._contexts = {}
            scores.update(zip(places, wave_scores, strict=True))
        return [scores[place] for place in range(len(requests))]

    def _model_call(
        self, inps: Int[Tensor, "batch seq"], *_args: Any, **_kwargs: Any
    ) -> Float[Tensor, "batch seq vocab"]:
        """Logits; rows that lm_eval only tries, to find a batch size, are all prompt."""
        width = inps.shape[1]
        lengths = [self._contexts.get(_without_padding(row), width) for row in inps.tolist()]
        places = torch.arange(width, device=inps.device)
        prompt_mask = places < torch.tensor(lengths, device=inps.device).unsqueeze(1)
        precision = self.mixed_precision_dtype
        with torch.no_grad(), torch.autocast(self.device.type, precision, precision is not None):
            return self.model(inps, prompt_mask=prompt_mask).logits


def _without_padding(row: Sequence[int]) -> tuple[int, ...]:
    """Tokens of a row; lm_eval pads on the right with 0."""
    n = len(row)
    while n and row[n - 1] == 0:
        n -= 1
    return tuple(row[:n])
