"""What every contestant is given: the same random Llama, the same samples, the frozen limit.

Knows torch, transformers and numpy alone, in versions from transformers 4.45 on, because it also
runs in the environments of the peers.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

LAYERS = (2, 4)
RANK = 4
BATCH = 16
LONGEST = 64
PAD = 0
# First four and last four prompt tokens, for every method that edits positions.
PREFIX, SUFFIX = 4, 4

Step = Callable[[Sequence[int]], None]
Seconds = dict[str, list[list[float]]]


@dataclass(frozen=True)
class Sample:
    """A prompt and its answer, as tokens."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True)
class Padded:
    """Samples as a batch, padded on the right, as one trains a plain transformers model."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    prompt_lengths: tuple[int, ...]


def llama(vocabulary: int) -> LlamaForCausalLM:
    """A random Llama in float32: hidden 256, six blocks. Equal weights at every call."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=128,
        pad_token_id=PAD,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval().requires_grad_(False)


def samples(n: int, vocabulary: int) -> list[Sample]:
    """Samples of 32 to 64 tokens; the last quarter is the answer."""
    draw = np.random.default_rng(0)
    data = []
    for _ in range(n):
        length = int(draw.integers(LONGEST // 2, LONGEST + 1))
        ids = tuple(int(token) for token in draw.integers(3, vocabulary, length))
        cut = length - length // 4
        data.append(Sample(ids[:cut], ids[cut:]))
    return data


def pad(data: Sequence[Sample]) -> Padded:
    """The samples as one batch."""
    width = max(len(s.prompt) + len(s.answer) for s in data)
    ids = np.full((len(data), width), PAD, np.int64)
    labels, mask = np.full_like(ids, -100), np.zeros_like(ids)
    for row, sample in enumerate(data):
        n, whole = len(sample.prompt), len(sample.prompt) + len(sample.answer)
        ids[row, :whole] = sample.prompt + sample.answer
        labels[row, n:whole] = sample.answer
        mask[row, :whole] = 1
    tensors = (torch.from_numpy(array) for array in (ids, mask, labels))
    return Padded(*tensors, prompt_lengths=tuple(len(s.prompt) for s in data))


def step_of(
    loss: Callable[[Padded], Tensor], parameters: Sequence[Tensor], data: Sequence[Sample]
) -> Step:
    """A training step on rows of the data: forward, backward, AdamW."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)

    def step(rows: Sequence[int]) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(pad([data[row] for row in rows])).backward()
        optimizer.step()

    return step


def frozen_limit(model: LlamaForCausalLM, data: Sequence[Sample]) -> Step:
    """The untouched model with one trainable vector at the output of the first edited block.

    What any method has to pay that leaves the base as it is. Between steps the model is untouched,
    so others may use it: two copies of a model can differ by 3 % in speed, by where they lie.
    """
    vector = torch.nn.Parameter(torch.zeros(model.config.hidden_size))

    def add_vector(_module: torch.nn.Module, _args: object, output: object) -> object:
        # A block gives a tensor, in older versions of transformers a tuple.
        if isinstance(output, tuple):
            return (output[0] + vector, *output[1:])
        assert isinstance(output, Tensor)
        return output + vector

    def loss(batch: Padded) -> Tensor:
        return model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            labels=batch.labels,
            use_cache=False,
        ).loss

    step = step_of(loss, [vector], data)

    def hooked_step(rows: Sequence[int]) -> None:
        handle = model.model.layers[LAYERS[0]].register_forward_hook(add_vector)
        step(rows)
        handle.remove()

    return hooked_step


def epochs(n_batches: int, n_epochs: int) -> list[list[list[int]]]:
    """Rows of each batch of each epoch, shuffled anew for each epoch."""
    n = n_batches * BATCH
    orders = [np.random.default_rng((0, epoch)).permutation(n) for epoch in range(n_epochs)]
    return [order.reshape(n_batches, BATCH).tolist() for order in orders]


def interleave(
    contestants: Mapping[str, Callable[[object], object]], rounds: Sequence[Sequence[object]]
) -> Seconds:
    """Seconds of every contestant in every round: name -> epoch -> round.

    All take each turn, one after the other; the order is rotated by one from turn to turn.
    """
    names = list(contestants)
    seconds: Seconds = {name: [[] for _ in rounds] for name in names}
    turn = 0
    for epoch, arguments in enumerate(rounds):
        for argument in arguments:
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                started = time.perf_counter()
                contestants[name](argument)
                seconds[name][epoch].append(time.perf_counter() - started)
            turn += 1
    return seconds


def ratio(seconds: Sequence[float], references: Sequence[Sequence[float]]) -> float:
    """Median over the rounds of the time over the mean time of the references."""
    means = [statistics.fmean(row) for row in zip(*references, strict=True)]
    return statistics.median(s / mean for s, mean in zip(seconds, means, strict=True))
