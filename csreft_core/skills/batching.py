"""Which rows a step takes, how processes and micro-batches share them, and the tensors they make.

All is a function of its arguments alone, so a resumed training takes the same rows again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from csreft_core.skills.encoding import Example

IGNORED = -100


def epoch_order(n: int, seed: int, epoch: int) -> Int[np.ndarray, " n"]:
    """The order of `n` rows in an epoch: a permutation, a function of its arguments alone."""
    return np.random.default_rng((seed, epoch)).permutation(n)


def step_rows(n: int, size: int, step: int, seed: int) -> Int[np.ndarray, " batch"]:
    """Rows of a step: a walk through one shuffled epoch after another.

    Args:
        n: Rows in all.
        size: Rows of a step.
        step: Counted from 0.
        seed: Of the order.
    """
    first = step * size
    epochs = range(first // n, (first + size - 1) // n + 1)
    order = np.concatenate([epoch_order(n, seed, epoch) for epoch in epochs])
    start = first - (first // n) * n
    return order[start : start + size]


def micro_batches(
    rows: Int[np.ndarray, " batch"], process: int, n_processes: int, accumulate: int
) -> list[Int[np.ndarray, " _part"]]:
    """The part of a step's rows that one process has, in micro-batches that differ by one row.

    Together the processes have each row once. There are fewer than `accumulate` where there are
    fewer rows, and none for a process without a row.
    """
    mine = rows[process::n_processes]
    return [part for part in np.array_split(mine, accumulate) if len(part)]


@dataclass(frozen=True)
class Batch:
    """Left-padded examples, so that all answers end in the last column.

    Attributes:
        input_ids: Prompt and answer; the padding token elsewhere.
        attention_mask: 1 on prompt and answer.
        prompt_mask: 1 on the prompt.
        labels: `input_ids` on the answer, -100 elsewhere; not shifted, as Hugging Face has it.
        n_answer_tokens: Answer tokens of each example.
        writable: Whether the tokens are the answer that the data asks for; only then can it be
            right (see `encoding.Example.lost`).
    """

    input_ids: Int[Tensor, "batch seq"]
    attention_mask: Int[Tensor, "batch seq"]
    prompt_mask: Int[Tensor, "batch seq"]
    labels: Int[Tensor, "batch seq"]
    n_answer_tokens: Int[Tensor, " batch"]
    writable: Bool[Tensor, " batch"]

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What a base is called with."""
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask}

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on a device."""
        return Batch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """Put examples into one batch.

    Args:
        examples: At least one; an answer may be empty.
        pad_id: Token for the padding, on the left.
    """
    width = max(len(e.prompt) + len(e.answer) for e in examples)
    ids = np.full((len(examples), width), pad_id, np.int64)
    labels = np.full_like(ids, IGNORED)
    mask, prompt_mask = np.zeros_like(ids), np.zeros_like(ids)
    for i, e in enumerate(examples):
        first, n = width - len(e.prompt) - len(e.answer), len(e.prompt)
        ids[i, first:] = e.prompt + e.answer
        mask[i, first:] = 1
        prompt_mask[i, first : first + n] = 1
        labels[i, first + n :] = e.answer
    lengths = np.array([len(e.answer) for e in examples], np.int64)
    writable = np.array([not e.lost for e in examples])
    return Batch(*map(torch.from_numpy, (ids, mask, prompt_mask, labels, lengths, writable)))
