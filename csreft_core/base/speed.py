"""How fast a base is on this machine, measured on a loaded one."""

import time
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

_LENGTH = 32
_FAST_S, _SLOW_S = 0.03, 0.5  # of a token: a fast base is asked for many, a slow one for few
_PROMPT, _ANSWER = 32, 16


@dataclass(frozen=True)
class Speed:
    """What a forward takes.

    Attributes:
        token_s: Seconds a token where many are read at once.
        step_s: Seconds for a single token, such as the next one of an answer.
    """

    token_s: float
    step_s: float

    @property
    def answer_s(self) -> float:
        """Seconds to read a prompt of 32 tokens and to write an answer of 16."""
        return _PROMPT * self.token_s + _ANSWER * self.step_s


@torch.no_grad()
def measure_speed(model: PreTrainedModel) -> Speed:
    """Time forwards of a model. On a CPU what other programs take of it is left out.

    Args:
        model: A loaded one.
    """
    step_s = min(_seconds(model, 1, 1) for _ in range(2))
    rows = 16 if step_s < _FAST_S else 2
    length = _LENGTH if step_s < _SLOW_S else _LENGTH // 8
    return Speed(token_s=_seconds(model, rows, length) / (rows * length), step_s=step_s)


def _seconds(model: PreTrainedModel, rows: int, length: int) -> float:
    ids = torch.zeros((rows, length), dtype=torch.long, device=model.device)
    # While the threads of a forward compute, the one that called it does too.
    clock = time.thread_time if model.device.type == "cpu" else time.perf_counter
    start = clock()
    logits = model(input_ids=ids, use_cache=False).logits
    logits[0, -1, 0].item()  # a GPU answers before it is done
    return clock() - start
