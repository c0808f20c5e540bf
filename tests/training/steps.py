"""One training step on a small random base, for the tests of what makes a step cheaper."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from csreft_core.attachment.attach import Attachment
from csreft_core.base.load import Base
from csreft_core.config import (
    AdapterConfig,
    BaseConfig,
    Config,
    RouterConfig,
    TrainConfig,
    with_overrides,
)
from csreft_core.inference.scoring import Encoded
from csreft_core.reft.adapter import CSReFT
from csreft_core.runs.run import Run
from csreft_core.skills.encoding import Example
from csreft_core.skills.skill_set import Row
from csreft_core.training.loss import Window
from csreft_core.training.state import TrainingState, adamw, kept_states
from csreft_core.training.step import one_step
from tests.tiny import make_adapter, tokens

N_ROWS = 10


def encoded() -> Encoded:
    """Prompts of 3 to 7 tokens, answers of 1, 2 or 3; two skills in turn."""
    prompts = [tuple(row.tolist()) for row in tokens(*(3 + i % 5 for i in range(N_ROWS)))]
    examples = tuple(Example(p, (5 + i, 7, 2)[: 1 + i % 3]) for i, p in enumerate(prompts))
    rows = tuple(Row((f"skill {i % 2}",), "", "", "train") for i in range(N_ROWS))
    return Encoded(rows, examples)


def quick(base: Base, *assignments: str, **train: Any) -> Config:
    """A config of 30 steps on the tiny base, in which nothing is given to the router."""
    start = Config(
        base=BaseConfig(path=base.id),
        train=TrainConfig(
            **{"steps": 30, "batch_size": 8, "lr": 0.05, "eval_every": 15, "threads": 1, **train}
        ),
    )
    return with_overrides(start, ["adapter.layers=[1]", *assignments])


def adapter_for(base: Any, router: RouterConfig | None = None, **settings: Any) -> CSReFT:
    """Moved off the start, so that every parameter has a gradient."""
    chosen = {"layers": (0, 1), "positions": "f1+l2", "constraint": "within", **settings}
    return make_adapter(base, router=router or RouterConfig(supervision=1.0), **chosen)


def training(attachment: Attachment, adapter: CSReFT, folder: Path, **train: Any) -> TrainingState:
    """The state before the first step of a training on all rows."""
    config = Config(
        adapter=adapter.spec.adapter,
        router=adapter.spec.router,
        train=TrainConfig(**{"batch_size": N_ROWS, "steps": 9, "lr": 1e-6, **train}),
    )
    assert isinstance(config.adapter, AdapterConfig)
    optimizer, rows, accelerator = adamw(adapter, config), encoded(), Accelerator(cpu=True)
    run = Run(folder)
    return TrainingState(
        run=run,
        config=config,
        adapter=adapter,
        attachment=attachment,
        accelerator=accelerator,
        train_rows=rows,
        validation=rows,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.ConstantLR(optimizer),
        kept=kept_states(run, config, attachment, accelerator, rows, adapter.spec)[0],
    )


class StoredBytes(saved_tensors_hooks):
    """What autograd stores inside the `with`; `peak` is the most at one time, in bytes.

    Storage is counted once, however many stored tensors share it.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._alive: Counter[tuple[int, int]] = Counter()
        super().__init__(self._pack, lambda held: held.tensor)

    def _pack(self, tensor: Tensor) -> "_Held":
        held = _Held(tensor, self._alive)
        self.peak = max(self.peak, sum(n_bytes for _, n_bytes in self._alive))
        return held


class _Held:
    def __init__(self, tensor: Tensor, alive: Counter[tuple[int, int]]) -> None:
        storage = tensor.untyped_storage()
        self.tensor, self.alive, self.key = tensor, alive, (storage.data_ptr(), storage.nbytes())
        alive[self.key] += 1

    def __del__(self) -> None:
        self.alive[self.key] -= 1
        if self.alive[self.key] == 0:
            del self.alive[self.key]


def stepped(state: TrainingState) -> tuple[float, dict[str, Tensor], int]:
    """Loss in nats per answer token, gradients, and the peak of `StoredBytes`, of one step."""
    window, stored = Window(), StoredBytes()
    with stored:
        one_step(state, window)
    scores = [score for rows in window.scores.values() for score in rows]
    gradients = {n: p.grad for n, p in state.adapter.named_parameters() if p.grad is not None}
    return sum(nll for nll, *_ in scores) / sum(n for _, n, _ in scores), gradients, stored.peak


def differs(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest difference of two sets of gradients, relative to the largest gradient."""
    assert one.keys() == other.keys()
    largest = max(gradient.abs().max() for gradient in other.values())
    assert largest > 0
    return max(((one[n] - other[n]).abs().max() / largest).item() for n in other)


def count_runs(modules: Sequence[torch.nn.Module]) -> list[int]:
    """How often each module runs from now on."""
    runs = [0] * len(modules)
    for i, module in enumerate(modules):
        module.register_forward_pre_hook(lambda *_, i=i: runs.__setitem__(i, runs[i] + 1))
    return runs
