"""Frozen weights in 4 or 8 bits, by bitsandbytes, on a GPU or on the CPU.

On CPUs with AVX512-BF16 a 4-bit layer in evaluation mode repacks its weights at the first forward
without gradient; the gradient that later passes through it is wrong, and some widths fail. So the
4-bit layers stay in training mode, which changes nothing else about them: they hold no dropout.
"""

import sys
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from csreft_core.errors import UnsupportedModelError

QUANTIZED = ("nf4", "fp4", "int8")


def settings(precision: str, compute: torch.dtype) -> BitsAndBytesConfig | None:
    """How transformers should load the weights; None where they are not quantised.

    Args:
        precision: `nf4` and `fp4` (with double quantisation), `int8`, or a plain number format.
        compute: Number format in which 4-bit weights are multiplied.

    Raises:
        UnsupportedModelError: bitsandbytes is not installed.
    """
    if precision not in QUANTIZED:
        return None
    if find_spec("bitsandbytes") is None:
        raise UnsupportedModelError(
            f"base.precision {precision!r} needs bitsandbytes; install it with "
            "`pip install bitsandbytes`, or use fp32, bf16 or fp16"
        )
    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=precision,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def hold_in_training_mode(model: PreTrainedModel) -> int:
    """Keep every 4-bit layer in training mode, whatever is asked of the model later.

    Returns:
        How many layers there are.
    """
    if "bitsandbytes" not in sys.modules:  # then nothing is made of it, and its import is slow
        return 0
    from bitsandbytes.nn.modules import Linear4bit

    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    for layer in layers:
        layer.training = True
        layer.__dict__["train"] = _always_training(layer)
    return len(layers)


def _always_training(layer: nn.Module) -> Any:
    def train(mode: bool = True) -> nn.Module:  # noqa: ARG001 - asked for, never followed
        return layer

    return train
