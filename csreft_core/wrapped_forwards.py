"""The `forward` of a module, wrapped on the instance: how an attachment gets into a base.

A torch hook costs 10 µs a call, because its module then takes PyTorch's slow path; a wrapped
`forward` costs 1 µs. A decoding step of a small model passes eight of them in 2 ms.
The hooks of other people run around the wrapped `forward`, whenever they were registered.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

Forward = Callable[..., Any]
Around = Callable[[Forward, tuple[Any, ...], dict[str, Any]], Any]


class Wrapped:
    """A module that calls `around(inner, args, kwargs)` until `restore`.

    Attributes:
        inner: What stands for the module's own `forward`; may be exchanged for a while.
    """

    def __init__(self, module: nn.Module, around: Around) -> None:
        self.inner: Forward = module.forward
        self._module, self._around = module, around
        self._before = module.__dict__.get("forward")
        self._active = True

        @functools.wraps(self.inner)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._active:
                return self._around(self.inner, args, kwargs)
            return self.inner(*args, **kwargs)

        self._forward: Forward = forward
        forward.__dict__["_wrapped"] = self
        module.__dict__["forward"] = forward

    def restore(self) -> None:
        """Let the module be as before; if someone has wrapped it since, when that one is gone."""
        self._active = False
        if self._module.__dict__.get("forward") is not self._forward:
            return
        if self._before is None:
            del self._module.__dict__["forward"]
            return
        self._module.__dict__["forward"] = self._before
        earlier = getattr(self._before, "_wrapped", None)
        if isinstance(earlier, Wrapped) and not earlier._active:
            earlier.restore()


@contextmanager
def replaced(forwards: Mapping[Wrapped, Forward]) -> Iterator[None]:
    """Inside the `with`, these functions stand for the `forward` of these modules."""
    before = {wrapped: wrapped.inner for wrapped in forwards}
    try:
        for wrapped, forward in forwards.items():
            wrapped.inner = forward
        yield
    finally:
        for wrapped, forward in before.items():
            wrapped.inner = forward


def recomputed(blocks: Sequence[Wrapped]) -> AbstractContextManager[None]:
    """Inside the `with`, these blocks keep their input alone for the backward pass.

    There they run a second time (Chen et al. 2016, arXiv 1604.06174). Only the block itself does,
    not what is wrapped around it. The backward pass may come after the `with`.
    """
    return replaced(
        {block: partial(checkpoint, block.inner, use_reentrant=False) for block in blocks}
    )
