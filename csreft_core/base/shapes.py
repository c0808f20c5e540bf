r"""What decides the memory of a model, from its `config.json` alone.

It is counted, not guessed: the model is built with tensors that have a shape and no storage, its
parameters are counted, and one of its blocks is run on such tensors to see what autograd keeps for
the backward pass. So there is no table of model families. A block that cannot run so, because what
it does depends on numbers, is estimated from its matrices.
"""

import copy
import logging
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, UntypedStorage, nn
from torch._subclasses import FakeTensorMode
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from csreft_core.base.blocks import find_blocks
from csreft_core.base.files import base_folder, read_description
from csreft_core.config import BaseConfig

_PROBES = (16, 32, 48)
_HEADS = 32  # where a block does not say


@dataclass(frozen=True)
class BlockBytes:
    """What a block keeps for the backward pass, in bytes.

    For `batch` rows of `length` tokens: `fixed + batch * (length * token + length**2 * pair)`.
    A Llama block in 32 bits keeps 2 d (inputs of the norms) + 4 d (queries, keys, values, output of
    the attention) + 3 d_mlp (inputs of the activation and of the product) numbers a token, and the
    attention mask, one number a pair.

    Attributes:
        fixed: Independent of the batch, such as copies of the weights in another number format.
        token: For each token.
        pair: For each pair of tokens of a row.
    """

    fixed: float
    token: float
    pair: float

    def of(self, batch: int, length: int) -> float:
        """Bytes for `batch` rows of `length` tokens."""
        return self.fixed + batch * (length * self.token + length**2 * self.pair)

    def in_twice_the_bits(self) -> "BlockBytes":
        """The same numbers in twice as many bits."""
        return BlockBytes(2 * self.fixed, 2 * self.token, 2 * self.pair)


@dataclass(frozen=True)
class Shape:
    """What decides the memory of a decoder-only model.

    Attributes:
        n_layers: Blocks.
        d_model: Width of the hidden state.
        d_cached: Width of a token's keys in the cache, and of its values; 0 without attention.
        vocab_size: Rows of the embedding.
        context: Most tokens that it can read; None where nothing is said.
        linear_parameters: Weights of the linear layers that `nf4`, `fp4` and `int8` quantise: all
            but the output head.
        n_linear: How many such layers.
        linear_outputs: Sum of their output widths.
        largest_linear: Weights of the largest of them.
        other_parameters: Embedding, norms, biases, output head; shared ones once.
        buffer_bytes: Tensors that belong to the model and are not trained.
        kept_fp32: What a block keeps when it computes in 32 bits.
        kept_half: The same in bf16 or fp16.
        kept_autocast: The same in 32 bits under bf16 autocast.
    """

    n_layers: int
    d_model: int
    d_cached: int
    vocab_size: int
    context: int | None
    linear_parameters: int
    n_linear: int
    linear_outputs: int
    largest_linear: int
    other_parameters: int
    buffer_bytes: int
    kept_fp32: BlockBytes
    kept_half: BlockBytes
    kept_autocast: BlockBytes

    @property
    def n_parameters(self) -> int:
        """All weights, shared ones once."""
        return self.linear_parameters + self.other_parameters


def shape_of(config: BaseConfig) -> Shape:
    """The shape of a base: of its path and revision; the weights are not read.

    Raises:
        UnsupportedModelError: not found, no decoder, or blocks that cannot be found.
    """
    return shape_of_description(read_description(config, base_folder(config, weights=False)))


def shape_of_description(about: PreTrainedConfig) -> Shape:
    """The shape that a transformers configuration describes.

    Raises:
        UnsupportedModelError: blocks that cannot be found.
    """
    model: Any = _build_empty(about)
    text = about.get_text_config()
    blocks, head = find_blocks(model), model.get_output_embeddings()
    linear = [
        (module.weight.numel(), _outputs(module))
        for module in model.modules()
        if type(module) in (nn.Linear, Conv1D) and module is not head
    ]
    n_parameters = sum(p.numel() for p in model.parameters())
    n_linear_parameters = sum(size for size, _ in linear)
    buffer_bytes = sum(b.numel() * b.element_size() for b in model.buffers())
    n_layers, context = len(blocks), getattr(text, "max_position_embeddings", None)
    full, half, autocast = _bytes_by_format(model, blocks)
    return Shape(
        n_layers=n_layers,
        d_model=text.hidden_size,
        d_cached=_cached_width(text),
        vocab_size=text.vocab_size,
        context=context,
        linear_parameters=n_linear_parameters,
        n_linear=len(linear),
        linear_outputs=sum(width for _, width in linear),
        largest_linear=max((size for size, _ in linear), default=0),
        other_parameters=n_parameters - n_linear_parameters,
        buffer_bytes=buffer_bytes,
        kept_fp32=full,
        kept_half=half,
        kept_autocast=autocast,
    )


def _build_empty(about: PreTrainedConfig) -> PreTrainedModel:
    """The model in 32 bits: for another format transformers changes torch's default meanwhile.

    That default belongs to the process, so another thread that loads a base would take it up.
    """
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(copy.deepcopy(about), dtype=torch.float32).eval()


def _cached_width(text: PreTrainedConfig) -> int:
    n_heads = getattr(text, "num_attention_heads", None)
    n_kv_heads = getattr(text, "num_key_value_heads", None) or n_heads
    if not n_heads or not isinstance(n_kv_heads, int):
        return 0
    return n_kv_heads * (getattr(text, "head_dim", None) or text.hidden_size // n_heads)


def _outputs(linear: nn.Module) -> int:
    """Width of a linear layer's output; GPT-2 stores the matrix the other way round."""
    assert isinstance(linear.weight, Tensor)
    return linear.weight.shape[1] if isinstance(linear, Conv1D) else linear.weight.shape[0]


def _bytes_by_format(model: PreTrainedModel, blocks: nn.ModuleList) -> tuple[BlockBytes, ...]:
    """What a block keeps in 32 bits, in 16 bits and under autocast. Leaves one block."""
    del blocks[1:]
    full = _measure_block(model, blocks[0], torch.float32)
    half = _measure_block(model, blocks[0], torch.bfloat16)
    autocast = _measure_block(model, blocks[0], torch.float32, autocast=True)
    half = half or full or _estimate(blocks[0], torch.bfloat16.itemsize)
    # Of mixtures of experts fake tensors know 16 bits alone.
    return full or half.in_twice_the_bits(), half, autocast or half


def _estimate(block: nn.Module, e: int) -> BlockBytes:
    """What goes into each matrix and comes out, and three matrices of attention for each head.

    Args:
        block: On any tensors.
        e: Bytes of a number.
    """
    matrices = [p for p in block.parameters() if p.ndim >= 2]
    heads = getattr(getattr(block, "config", None), "num_attention_heads", _HEADS)
    return BlockBytes(0, e * sum(sum(p.shape[-2:]) for p in matrices), 3 * e * heads)


def _measure_block(
    model: PreTrainedModel, block: nn.Module, dtype: torch.dtype, *, autocast: bool = False
) -> BlockBytes | None:
    """Run a block on fake tensors of three lengths; the three numbers follow. None if it fails."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    was_disabled, log.disabled = log.disabled, True
    try:
        with FakeTensorMode():
            _fill(model, dtype)
            with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
                sizes = [_kept_bytes(model, block, length) for length in _PROBES]
    except Exception:  # noqa: BLE001 - each family fails on fake tensors in its own way
        return None
    finally:
        log.disabled = was_disabled
    fixed, token, pair = np.linalg.solve(np.vander(_PROBES, 3, increasing=True), sizes)
    return BlockBytes(float(fixed), float(token), float(pair))


def _fill(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Frozen fake tensors for all parameters, in this format, and for all buffers."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            new = torch.empty(parameter.shape, dtype=dtype)
            module.register_parameter(name, nn.Parameter(new, requires_grad=False))
        for name, buffer in list(module.named_buffers(recurse=False)):
            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _kept_bytes(model: PreTrainedModel, block: nn.Module, length: int) -> int:
    """Bytes that a block keeps for one row, each storage once, without parameters."""
    storages: dict[int, UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage  # held, so that its address is not given away again
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)

    def begin(_block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hooks.__enter__()
        if args:
            return (args[0].detach().requires_grad_(), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"].detach().requires_grad_()}

    def end(*_: object) -> None:
        hooks.__exit__()

    handles = [
        block.register_forward_pre_hook(begin, with_kwargs=True),
        block.register_forward_hook(end, always_call=True),
    ]
    ids = torch.zeros(1, length, dtype=torch.long)
    model(ids, attention_mask=torch.ones_like(ids), use_cache=False)
    for handle in handles:
        handle.remove()
    for parameter in model.parameters():
        storages.pop(parameter.untyped_storage()._cdata, None)
    return sum(storage.nbytes() for storage in storages.values())
