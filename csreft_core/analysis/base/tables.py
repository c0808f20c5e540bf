"""Tables about a base: what it needs and what is free, estimate against measurement, its layers.

Sizes are in bytes.
"""

import math
from functools import lru_cache
from typing import Literal

import pandas as pd
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from csreft_core.base.blocks import find_blocks
from csreft_core.base.devices import free_bytes
from csreft_core.base.files import base_folder, read_description
from csreft_core.base.known import architecture
from csreft_core.base.load import Base
from csreft_core.base.memory.need import Need, need, row_length, rows_at_a_time, weight_bytes
from csreft_core.base.memory.use import weight_bytes_of
from csreft_core.base.shapes import Shape, shape_of, shape_of_description
from csreft_core.config import BaseConfig, Config, known_bases

Precision = Literal["fp32", "bf16", "fp16", "nf4", "fp4", "int8"]

PARTS = {
    "weights": "weights",
    "adapter": "adapter",
    "optimizer": "optimiser",
    "activations": "activations",
    "logits": "logits",
    "margin": "margin",
}
"""Fields of `Need` and what they are called."""


def description_of(base: BaseConfig) -> PreTrainedConfig:
    """What transformers knows of a base from its `config.json`; for a known base without network.

    Raises:
        UnsupportedModelError: not found, or no decoder.
    """
    known = known_bases().get(base.path)
    if known is not None:
        return architecture(known)
    return read_description(base, base_folder(base, weights=False))


@lru_cache(maxsize=64)
def base_shape(path: str, revision: str | None) -> Shape:
    """The shape of a base; its precision and device change nothing.

    Raises:
        UnsupportedModelError: not found, no decoder, or blocks that cannot be found.
    """
    known = known_bases().get(path)
    if known is not None:
        return shape_of_description(architecture(known))
    return shape_of(BaseConfig(path=path, revision=revision))


def needed(config: Config, *, answer: int | None = None, training: bool = True) -> Need:
    """What a run of these settings needs at most.

    Args:
        config: Its `train.batch_size` and `train.max_length` are the size of a batch.
        answer: Tokens of the longest answer; a quarter of the length if not given.
        training: Or answering one prompt.

    Raises:
        ConfigError: an adapter that does not fit the base.
        UnsupportedModelError: a base or a device that is not there.
    """
    shape = base_shape(config.base.path, config.base.revision)
    length = row_length(shape, config)
    return need(
        shape,
        config,
        batch=rows_at_a_time(config) if training else 1,
        length=length,
        answer=min(answer or length // 4, length),
        training=training,
    )


def need_table(
    config: Config,
    *,
    answer: int | None = None,
    training: bool = True,
    free: int | None = None,
) -> pd.DataFrame:
    """The parts of what is needed, and what is free.

    Args:
        config: See `needed`; so are the next two.
        answer: Tokens.
        training: Or answering one prompt.
        free: Bytes; those of `base.device` now if not given.

    Returns:
        Columns kind (`needed` or `free`), part, bytes.
    """
    parts = needed(config, answer=answer, training=training)
    free = free_bytes(config.base.device) if free is None else free
    rows = [("needed", name, getattr(parts, field)) for field, name in PARTS.items()]
    return pd.DataFrame([*rows, ("free", "free", free)], columns=["kind", "part", "bytes"])


def known_bases_table(precisions: tuple[Precision, ...], *, device: str = "auto") -> pd.DataFrame:
    """The weights of every known base in some number formats, beside what is free.

    Returns:
        Columns base, path, parameters, layers, d_model, licence, gated, precision, bytes, free.
    """
    rows = []
    for path, known in known_bases().items():
        shape = base_shape(path, None)
        for precision in precisions:
            n_bytes = weight_bytes(shape, BaseConfig(path=path, precision=precision, device=device))
            facts = (shape.n_parameters, shape.n_layers, shape.d_model, known.licence, known.gated)
            rows.append((known.name, path, *facts, precision, n_bytes))
    columns = [
        "base",
        "path",
        "parameters",
        "layers",
        "d_model",
        "licence",
        "gated",
        "precision",
        "bytes",
    ]
    return pd.DataFrame(rows, columns=columns).assign(free=free_bytes(device))


def measured_table(base: Base, estimate: Need) -> pd.DataFrame:
    """The estimate of the weights beside what they really take.

    Returns:
        One row: part, estimated and measured (bytes), error ((estimated - measured) / measured).
    """
    measured = weight_bytes_of(base.model)
    row = ("weights", estimate.weights, measured, estimate.weights / measured - 1)
    return pd.DataFrame([row], columns=["part", "estimated", "measured", "error"])


def layers_table(base: Base) -> pd.DataFrame:
    """The decoder blocks of a loaded base.

    Returns:
        Columns layer (its output is what an edit of it changes), block (its class), attention,
        d_model, parameters, bytes, device.
    """
    return _layers(base.model)


def planned_layers_table(base: BaseConfig) -> pd.DataFrame:
    """As `layers_table`, before any weight is read: bytes are missing, the device is empty.

    Raises:
        UnsupportedModelError: not found, no decoder, or blocks that cannot be found.
    """
    with torch.device("meta"):
        # Without a type: naming one changes torch's default for every thread meanwhile.
        model = AutoModelForCausalLM.from_config(description_of(base), dtype=None)
    return _layers(model)


def _layers(model: PreTrainedModel) -> pd.DataFrame:
    blocks, text = find_blocks(model), model.config.get_text_config()
    kinds = attention_kinds(text, len(blocks))
    rows = [
        (i, type(block).__name__, kind, text.hidden_size, _parameters(block), *_place(block))
        for i, (block, kind) in enumerate(zip(blocks, kinds, strict=True))
    ]
    columns = ["layer", "block", "attention", "d_model", "parameters", "bytes", "device"]
    return pd.DataFrame(rows, columns=columns).astype({"bytes": "Int64"})


def _parameters(block: nn.Module) -> int:
    """Weights of a block. A 4-bit weight is stored packed and remembers its true shape."""
    states = ((p, getattr(p, "quant_state", None)) for p in block.parameters())
    return sum(p.numel() if state is None else math.prod(state.shape) for p, state in states)


def _place(block: nn.Module) -> tuple[int | None, str]:
    devices = sorted({str(p.device) for p in block.parameters()})
    return (None, "") if devices == ["meta"] else (weight_bytes_of(block), ", ".join(devices))


def attention_kinds(text: PreTrainedConfig, n_layers: int) -> list[str]:
    """Whether each block attends to all earlier tokens or to a window of them, or what else."""
    window = getattr(text, "sliding_window", None)
    default = "sliding_attention" if window else "full_attention"
    kinds = getattr(text, "layer_types", None) or [default] * n_layers
    names = {"full_attention": "all earlier tokens", "sliding_attention": f"last {window} tokens"}
    return [names.get(kind, kind.replace("_", " ")) for kind in kinds]
