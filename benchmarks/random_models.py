"""Models with the shape of real ones and random weights, built where they run.

Nothing of a large model ever lies in the host's memory, and in 4 bits no more than one matrix at a
time exists unquantised. Speed and memory depend on shapes alone, so random weights serve.
"""

from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from csreft_core.base.load import Base, freeze, load_base
from csreft_core.config import BaseConfig

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "nf4": torch.bfloat16}
_STANDARD_DEVIATION = 0.02


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama and the layers that are edited; without sizes it is the pocket base."""

    layers: tuple[int, ...]
    sizes: dict[str, int] | None = None


SHAPES = {
    "7B": Shape(
        (3, 9, 18, 24),
        {
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "vocab_size": 32000,
        },
    ),
    "0.5B": Shape(
        (2, 7, 13, 18),
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "vocab_size": 32000,
        },
    ),
    "pocket": Shape((1, 2, 3, 4)),
    "small": Shape(
        (1, 2, 3, 4),
        {
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "vocab_size": 1000,
        },
    ),
}


def build(shape: str, precision: str, device: str) -> Base:
    """A frozen base of this shape on this device.

    Args:
        precision: `fp32`, `bf16` or `nf4` (double quantisation, bfloat16 for all else).
    """
    sizes = SHAPES[shape].sizes
    if sizes is None:
        return load_base(BaseConfig(precision=precision, device=device))  # type: ignore[arg-type]
    few: dict[str, Any] = {"max_position_embeddings": 4096, "pad_token_id": 0}
    config = LlamaConfig(**{**few, **sizes}, bos_token_id=1, eos_token_id=2)
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config)
        model.to(PRECISIONS[precision])
    fill(model, torch.device(device), in_4_bits=precision == "nf4")
    return freeze(model, three_tokens(), base_id=f"random {shape}")


def three_tokens() -> PreTrainedTokenizerFast:
    """A tokeniser for models that are given token ids: only its padding is ever asked for."""
    words = WordLevel({"<pad>": 0, "<bos>": 1, "<eos>": 2}, unk_token="<pad>")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )


@torch.no_grad()
def fill(model: LlamaForCausalLM, device: torch.device, *, in_4_bits: bool) -> None:
    """Give a model without storage its weights, matrix by matrix."""
    # Its frequencies are computed, not loaded, and so have no place among the weights.
    rotary = type(model.model.rotary_emb)
    with device:
        model.model.rotary_emb = rotary(model.config)
    generator = torch.Generator(device).manual_seed(0)
    for name, module in list(model.named_modules()):
        for key, parameter in list(module.named_parameters(recurse=False)):
            # Norms are vectors of ones, all else is drawn.
            value = torch.ones(parameter.shape, dtype=parameter.dtype, device=device)
            if parameter.ndim > 1:
                value.normal_(0, _STANDARD_DEVIATION, generator=generator)
            if in_4_bits and isinstance(module, nn.Linear) and module is not model.lm_head:
                model.set_submodule(name, _quantize(value))
            else:
                setattr(module, key, nn.Parameter(value, requires_grad=False))


def _quantize(weight: torch.Tensor) -> nn.Module:
    """A 4-bit layer as `csreft_core.base.quantization` asks transformers for."""
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    kind = {"compress_statistics": True, "quant_type": "nf4"}
    rows, columns = weight.shape
    layer = Linear4bit(
        columns, rows, bias=False, compute_dtype=torch.bfloat16, device="meta", **kind
    )
    parameter: Any = Params4bit(weight, requires_grad=False, **kind)
    # It is quantised when it is sent to a device, also to the one that it is on.
    layer.weight = parameter.to(weight.device)
    return layer
