"""Running out of memory as an error that a user can act on; the process lives on.

On Linux a process that takes more main memory than there is may be killed without an error, so what
can be known before is checked before (`memory.need`). What can be caught is caught here.
"""

import gc
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedConfig

from csreft_core.base.devices import free_bytes
from csreft_core.base.memory.need import in_gb, smaller_setting, training_need
from csreft_core.base.shapes import shape_of_description
from csreft_core.config import Config, assignments
from csreft_core.errors import NotEnoughMemoryError

_ALLOCATORS = ("DefaultCPUAllocator", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(name in str(error) for name in _ALLOCATORS)


@contextmanager
def memory_errors(doing: str, device: torch.device, advice: Callable[[], str]) -> Iterator[None]:
    """Inside this block, running out of memory is a `NotEnoughMemoryError`, and all is given back.

    Args:
        doing: What needs the memory, to begin the message with.
        device: Where the memory is missing.
        advice: Says what to do; asked after the memory is free again.

    Raises:
        NotEnoughMemoryError: with what was asked for and what is free.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        missing = _missing_text(str(error))
        # The frames of the failed work hold its tensors, and the error holds the frames.
        traceback.clear_frames(error.__traceback__)
        free_memory()
        raise NotEnoughMemoryError(
            f"{doing} ran out of memory: {missing}{in_gb(free_bytes(device))} are free now on "
            f"{device}; {advice()}"
        ) from None


def free_memory() -> None:
    """Give back now what no name holds: objects that refer to each other, torch's cache on GPUs."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _missing_text(message: str) -> str:
    """What the allocator was asked for, from its message."""
    match = re.search(r"allocate ([\d.]+) (bytes|[KMG]iB)", message)
    if match is None:
        return ""
    return f"another {in_gb(round(float(match[1]) * _UNITS[match[2]]))} could not be had, "


def training_advice(
    about: PreTrainedConfig, config: Config, device: torch.device, *, longest: int, answer: int
) -> str:
    """What a training needs beside the base that is loaded, and the least change that fits.

    Args:
        about: The base's description.
        config: Of the training.
        device: Where the base is.
        longest: Tokens of the longest row.
        answer: Tokens of the longest answer.
    """
    shape = shape_of_description(about)
    need = training_need(shape, config, longest=longest, answer=answer)
    # The estimate may say that it fits, where a device is shared or its memory in pieces.
    room = min(free_bytes(device) + need.weights, round(0.9 * need.total))
    smaller = smaller_setting(shape, config, room, longest=longest, answer=answer)
    beside = f"it needs about {in_gb(need.total - need.weights)} beside the base"
    if smaller is None:
        return f"{beside}, and no smaller setting fits; use a smaller base or another device"
    return f"{beside}; this fits: {' '.join(assignments(config, smaller))}"
