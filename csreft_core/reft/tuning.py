"""Tuning: what a method trains beside a frozen base. One interface for all methods.

`adapter.CSReFT` is one; the package `methods` holds the others and builds, reads and applies any of
them. The trainer, the evaluation and the command line know this interface alone.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from csreft_core.reft.positions import PositionRule
from csreft_core.reft.router import Router


class Tuning(nn.Module):
    """The trained parameters of one method, and how they change the base.

    Attributes:
        spec: What it is, without its numbers: its base, its skills, the settings of its router, ...
        names: What its gates open, one name a gate; empty for a method without gates.
        n_subspaces: Number of gates k.
        layers: Blocks whose output `passes` edits; empty where the base itself is changed.
        positions: Which tokens are edited.
        router: Decides the gates, if there is one.
        penalty_weight: Weight of `overlap_penalty` in the loss.
    """

    spec: Any
    names: tuple[str, ...]
    n_subspaces: int
    layers: tuple[int, ...]
    positions: PositionRule
    router: Router | None
    penalty_weight: float

    @property
    def has_gates(self) -> bool:
        """Whether there is anything to open or close."""
        return self.n_subspaces > 0

    @property
    def unchanged_up_to(self) -> int:
        """Output of the blocks up to this one is as in the base; -1 is the embedding."""
        return min(self.layers, default=-1)

    def applied(self, current_pass: Callable[[], Any]) -> AbstractContextManager[None]:  # noqa: ARG002
        """The base is changed inside the `with`, and afterwards exactly as it was before.

        Nothing has to be done for edits that a request brings.

        Args:
            current_pass: Gives the `passes.Pass` that runs now, for methods with gates.
        """
        return nullcontext()

    def set_dropout_seed(self, seed: int) -> None:
        """Choose what dropout takes in the next step, if there is any."""

    def overlap_penalty(self) -> torch.Tensor:
        """How much the parts for different skills overlap; 0 where there are no parts."""
        return torch.zeros(())

    def counts(self) -> dict[str, int]:
        """Trained parameters: `total`, with `subspaces` and `router` where there are such."""
        return {"total": sum(p.numel() for p in self.parameters() if p.requires_grad)}

    def figures(self) -> dict[str, float]:
        """What a training writes down about the parameters."""
        return {}

    def save(self, path: Path) -> None:
        """Write everything to one safetensors file, atomically."""
        raise NotImplementedError
