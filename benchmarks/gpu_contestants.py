"""What takes turns on a GPU: the frozen limit and CS-ReFT, on one base."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from benchmarks.our_methods import config_of, training_of, use_attachment
from benchmarks.workload import Sample, pad
from csreft_core.attachment.attach import attach
from csreft_core.attachment.wrapped_forwards import Forward, Wrapper
from csreft_core.base.load import Base
from csreft_core.config import Config
from csreft_core.training.loss import Window
from csreft_core.training.step import one_step

SKILLS = 4


@dataclass
class Contestant:
    """What takes turns: `ready` surrounds a step without being timed."""

    step: Callable[[], object]
    ready: Callable[[], AbstractContextManager[Any]]
    reference: str
    tensors: list[Tensor] = field(default_factory=list)


def samples(n: int, length: int, vocabulary: int) -> list[Sample]:
    """Samples of one length; the last quarter is the answer."""
    ids = np.random.default_rng(0).integers(3, vocabulary, (n, length)).tolist()
    cut = length - length // 4
    return [Sample(tuple(row[:cut]), tuple(row[cut:])) for row in ids]


def limit(base: Base, data: list[Sample], layer: int, batch: int, *, recompute: bool) -> Contestant:
    """The base with one trainable vector at the output of a block."""
    vector = torch.nn.Parameter(torch.zeros(base.d_model, device=base.device))
    optimizer = torch.optim.AdamW([vector], lr=1e-4)
    rows = pad(data[:batch])
    inputs = {
        "input_ids": rows.input_ids.to(base.device),
        "attention_mask": rows.attention_mask.to(base.device),
        "labels": rows.labels.to(base.device),
    }

    def add_vector(_module: torch.nn.Module, _args: object, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] + vector.to(output[0].dtype), *output[1:])
        return output + vector.to(output.dtype)

    @contextmanager
    def ready() -> Iterator[None]:
        handle = base.blocks[layer].register_forward_hook(add_vector)
        wrappers = [Wrapper(block, _recompute) for block in base.blocks[layer + 1 :] if recompute]
        yield
        for block in wrappers:
            block.restore()
        handle.remove()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        base.model(**inputs, use_cache=False).loss.backward()
        optimizer.step()

    return Contestant(step, ready, _limit_name(recompute), [vector])


def _recompute(inner: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return checkpoint(inner, *args, use_reentrant=False, **kwargs)


def ours(base: Base, data: list[Sample], config: Config, folder: Path) -> Contestant:
    """The step of `csreft_core.training.loop`; kept states are all computed beforehand."""
    window = Window()
    with attach(base) as attachment:
        training = training_of(attachment, config, data, SKILLS, folder)
        if training.kept is not None:
            training.kept.of(range(len(data)))

    @contextmanager
    def ready() -> Iterator[None]:
        with attach(base) as attachment:
            use_attachment(training, attachment)
            yield

    return Contestant(
        lambda: one_step(training, window),
        ready,
        _limit_name(config.train.checkpointing),
        list(training.adapter.parameters()),
    )


def _limit_name(recompute: bool) -> str:
    return "frozen limit, checkpointed" if recompute else "frozen limit"


def contestants(
    base: Base, args: argparse.Namespace, layers: tuple[int, ...], folder: Path
) -> dict[str, Contestant]:
    """All that take turns on one base."""
    data = samples(4 * args.batch, args.length, base.model.config.vocab_size)
    taking_turns = {}
    for recompute in (False, True):
        name = _limit_name(recompute)
        taking_turns[name] = limit(base, data, layers[0], args.batch, recompute=recompute)
        for keep in (False, True):
            words = ["CS-ReFT", *["checkpointed"] * recompute, *["kept states"] * keep]
            config = training_config(args, layers, recompute=recompute, keep=keep)
            taking_turns[", ".join(words)] = ours(
                base, data, config, folder / f"{recompute}-{keep}"
            )
        taking_turns[f"{name} again"] = taking_turns[name]
    return taking_turns


def training_config(
    args: argparse.Namespace, layers: tuple[int, ...], *, recompute: bool, keep: bool
) -> Config:
    """k = 4 and r = 4 at the layers, first and last four prompt tokens."""
    start = config_of(SKILLS)
    train = replace(start.train, batch_size=args.batch, checkpointing=recompute, keep_states=keep)
    return replace(start, adapter=replace(start.adapter, layers=layers), train=train)
