"""How much memory is really used, to be held against the `need.Need`.

On a GPU torch's allocator is asked. On the CPU the bytes of tensors are counted, because the
process also holds libraries, caches and what its allocator does not give back.
"""

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from csreft_core.base.memory.need import Need


def tensors_of(model: nn.Module) -> list[Tensor]:
    """Parameters and buffers with the scales of quantised weights."""
    tensors = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        tensors += _scales(parameter)
    for module in model.modules():  # in 8 bits the first forward moves them here
        state = getattr(module, "state", None)
        scales = [getattr(state, name, None) for name in ("SCB", "CB")]
        tensors += [tensor for tensor in scales if isinstance(tensor, Tensor)]
    return tensors


def _scales(parameter: nn.Parameter) -> list[Tensor]:
    """What bitsandbytes hangs on a weight: `quant_state` in 4 bits, `SCB` in 8."""
    state = getattr(parameter, "quant_state", None)
    inner = getattr(state, "state2", None)
    candidates = [getattr(parameter, "SCB", None), getattr(parameter, "CB", None)]
    candidates += [getattr(state, name, None) for name in ("absmax", "code", "offset")]
    candidates += [getattr(inner, name, None) for name in ("absmax", "code")]
    return [tensor for tensor in candidates if isinstance(tensor, Tensor)]


def n_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages of tensors, shared ones once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def weight_bytes_of(model: nn.Module) -> int:
    """Bytes that the weights of a loaded model take."""
    return n_bytes(tensors_of(model))


@dataclass(frozen=True)
class Use:
    """Measured bytes: the base's weights, and the peak of everything during some work."""

    weights: int
    total: int


def measure_use(model: nn.Module, work: Callable[[], Any], others: Iterable[Tensor] = ()) -> Use:
    """What a model and some work with it take at most.

    Args:
        model: The base.
        work: Is called once; a training step, say. Its gradients and what it returns stay.
        others: Other tensors that are there before, such as the adapter and its optimiser's state.
    """
    weights = weight_bytes_of(model)
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    if devices:
        for device in devices:
            torch.cuda.reset_peak_memory_stats(device)
        result = work()
        total = sum(torch.cuda.max_memory_allocated(device) for device in devices)
    else:
        with LiveBytes([*tensors_of(model), *others]) as live:
            result = work()
        total = live.peak
    del result
    return Use(weights, total)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that live, and their peak.

    A storage is counted when an operation returns it and until nothing holds it any more.

    Args:
        held: Tensors that live already.
    """

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        for tensor in tensors:
            self._count(tensor)

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return
        self._alive[key] = weakref.ref(storage, partial(self._forget, key, size))
        self.now += size
        self.peak = max(self.peak, self.now)

    def _forget(self, key: int, size: int, _gone: object) -> None:
        del self._alive[key]
        self.now -= size

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result


def estimate_error(need: Need, use: Use) -> dict[str, float]:
    """By how much the estimate is off: (estimate - measured) / measured, for weights and all.

    The margin is no part of the estimate.
    """
    return {
        "weights": need.weights / use.weights - 1,
        "total": (need.total - need.margin) / use.total - 1,
    }
