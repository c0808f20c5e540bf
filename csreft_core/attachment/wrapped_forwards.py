"""The `forward` of a module, wrapped on the instance: how an attachment gets into a base.

A torch hook costs 10 µs a call, because its module then takes PyTorch's slow path; a wrapped
`forward` costs 1 µs. A decoding step of a small model passes eight of them in 2 ms.
The hooks of other people run around the wrapped `forward`, whenever they were registered.
"""

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from threading import Lock
from typing import Any, NoReturn

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from csreft_core.errors import ConfigError

Forward = Callable[..., Any]
Around = Callable[[Forward, tuple[Any, ...], dict[str, Any]], Any]


class Wrapper:
    """Stands for a method of one module and calls `around(inner, args, kwargs)` until `restore`.

    Args:
        module: Has it in its `__dict__`, over what its class has.
        around: Is given the method as it was, and the arguments.
        name: Of the method.

    Attributes:
        inner: What stands for the module's own method; may be exchanged for a while.
    """

    def __init__(self, module: nn.Module, around: Around, name: str = "forward") -> None:
        self.inner: Forward = getattr(module, name)
        self._module, self._around, self._name = module, around, name
        self._before = module.__dict__.get(name)
        self._active = True
        # Many look at the arguments of a forward to see what it takes.
        self._own = functools.update_wrapper(partial(_call, self), self.inner, updated=())
        module.__dict__[name] = self._own

    def __deepcopy__(self, memo: dict[int, Any]) -> "Wrapper":
        """What is left in other people's wrappers after `restore`, for a copy of the module."""
        if self._active:
            _refuse_copy()
        twin = copy.copy(self)
        twin.inner = copy.deepcopy(self.inner, memo)
        return twin

    def restore(self) -> None:
        """Let the module be as before; if someone has wrapped it since, when that one is gone."""
        self._active = False
        own = self._module.__dict__
        if own.get(self._name) is not self._own:
            return
        if self._before is None:
            del own[self._name]
            return
        own[self._name] = self._before
        earlier = self._before.args[0] if isinstance(self._before, partial) else None
        if isinstance(earlier, Wrapper) and not earlier._active:
            earlier.restore()


def _call(wrapper: Wrapper, *args: Any, **kwargs: Any) -> Any:
    if wrapper._active:
        return wrapper._around(wrapper.inner, args, kwargs)
    return wrapper.inner(*args, **kwargs)


def forbid_copies(module: nn.Module) -> list[Wrapper]:
    """Refuse copies of a wrapped module until each is restored: they would run the original.

    `copy`, `deepcopy`, pickle (so `torch.save` and processes that are spawned) ask for the state;
    `DataParallel` for replicas.
    """
    names = ("__getstate__", "_replicate_for_data_parallel")
    return [Wrapper(module, lambda *_: _refuse_copy(), name) for name in names]


class Wrappers:
    """All that an attachment has wrapped: the `forward` of each module once, and other methods."""

    def __init__(self) -> None:
        self._forwards: dict[nn.Module, Wrapper] = {}
        self._others: list[Wrapper] = []
        self._lock, self._ended = Lock(), False

    def of_forward(self, module: nn.Module, around: Around) -> Wrapper:
        """The wrapper of a module's `forward`, placed when it is first asked for.

        Raises:
            RuntimeError: all were restored.
        """
        with self._lock:
            if self._ended:
                raise RuntimeError("the attachment was detached; attach again")
            if module not in self._forwards:
                self._others += forbid_copies(module)
                self._forwards[module] = Wrapper(module, around)
            return self._forwards[module]

    def add_method(self, module: nn.Module, around: Around, name: str) -> None:
        """Wrap another method of a module."""
        self._others.append(Wrapper(module, around, name))

    def restore(self) -> bool:
        """Restore all and wrap nothing from now on; False if that was done before."""
        with self._lock:
            is_first, self._ended = not self._ended, True
            for wrapper in (*self._forwards.values(), *self._others):
                wrapper.restore()
            self._forwards, self._others = {}, []
            return is_first


def _refuse_copy() -> NoReturn:
    raise ConfigError(
        "this model is attached, and a copy of it (copy, pickle, DataParallel) would go on running "
        "the original; detach() first, or copy the base before attaching and attach to the copy"
    )


@contextmanager
def exchange_forwards(forwards: Mapping[Wrapper, Forward]) -> Iterator[None]:
    """Inside the `with`, these functions stand for the `forward` of these modules."""
    before = {wrapper: wrapper.inner for wrapper in forwards}
    try:
        for wrapper, forward in forwards.items():
            wrapper.inner = forward
        yield
    finally:
        for wrapper, forward in before.items():
            wrapper.inner = forward


def recompute_blocks(blocks: Sequence[Wrapper]) -> AbstractContextManager[None]:
    """Inside the `with`, these blocks keep their input alone for the backward pass.

    There they run a second time (Chen et al. 2016, arXiv 1604.06174). Only the block itself does,
    not what is wrapped around it. The backward pass may come after the `with`.
    """
    return exchange_forwards(
        {block: partial(checkpoint, block.inner, use_reentrant=False) for block in blocks}
    )


def whole_rows(forward: Forward) -> Forward:
    """A model's forward whose blocks see every token, also where few tokens' logits are asked for.

    Takes `logits_to_keep` away from models that drop the other tokens on the way, and obeys it.
    """

    def of_every_token(*args: Any, logits_to_keep: int | Tensor = 0, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        columns = (
            slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        )
        output.logits = output.logits[:, columns]
        return output

    return of_every_token
