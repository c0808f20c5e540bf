"""Where a base runs and how much memory is free there."""

import platform

import psutil
import torch

from csreft_core.config import BaseConfig
from csreft_core.errors import UnsupportedModelError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(device: str) -> torch.device:
    """The device of a setting; `auto` is CUDA where there is one, else the CPU.

    `balanced` spreads the blocks over all GPUs; this is then the first of them, where the inputs
    go.

    Raises:
        UnsupportedModelError: a device that this machine does not have.
    """
    n_gpus = torch.cuda.device_count()
    if device == "auto":
        return torch.device("cuda" if n_gpus else "cpu")
    target = torch.device("cuda:0" if device == "balanced" else device)
    if target.type == "cuda" and (target.index or 0) >= n_gpus:
        raise UnsupportedModelError(
            f"base.device is {device!r}, but this machine has {n_gpus or 'no'} GPU"
            f"{'s' * (n_gpus > 1)}; use 'auto' or 'cpu'"
        )
    return target


def machine(device: torch.device) -> str:
    """What a measurement ran on, without a name that belongs to somebody."""
    n = torch.get_num_threads()
    where = f"{platform.system()} {platform.machine()}, {n} CPU thread{'s' * (n > 1)}"
    if device.type == "cuda":
        return f"{where}, {torch.cuda.get_device_name(device)}"
    return where


def compute_type(config: BaseConfig) -> torch.dtype:
    """The number format of the arithmetic, and of the weights that are not quantised."""
    if config.precision in DTYPES:
        return DTYPES[config.precision]
    if config.compute != "auto":
        return DTYPES[config.compute]
    on_gpu = resolve_device(config.device).type == "cuda"
    return torch.bfloat16 if on_gpu else torch.float32


def free_bytes(device: str | torch.device) -> int:
    """Memory that a process could still take: of a GPU, of all of them, or the main memory.

    On a GPU this counts what torch holds without using it.

    Args:
        device: A setting of `base.device`, or a device.

    Raises:
        UnsupportedModelError: a device that this machine does not have.
    """
    target = device if isinstance(device, torch.device) else resolve_device(device)
    if target.type != "cuda":
        return psutil.virtual_memory().available
    every = range(torch.cuda.device_count())
    return sum(_free_on(i) for i in (every if device == "balanced" else [target.index or 0]))


def _free_on(index: int) -> int:
    idle = torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index)
    return torch.cuda.mem_get_info(index)[0] + idle
