r"""What decides the memory of a model, from its `config.json` alone.

It is counted, not guessed: the model is built with tensors that have a shape and no storage
(torch's fake tensors), its parameters are counted, and one of its blocks is run on them to see what
autograd keeps for the backward pass. So there is no table of model families.
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

from csreft_core.base_files import base_folder, read_description
from csreft_core.blocks import find_blocks
from csreft_core.config import BaseConfig

_PROBES = (16, 32, 48)


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

    def doubled(self) -> "BlockBytes":
        """The same numbers in twice as many bits."""
        return BlockBytes(2 * self.fixed, 2 * self.token, 2 * self.pair)


@dataclass(frozen=True)
class Shape:
    """What decides the memory of a decoder-only model.

    Attributes:
        n_layers: Blocks.
        d_model: Width of the hidden state.
        d_mlp: Width inside a block's feed-forward part.
        n_heads: Heads of the queries.
        n_kv_heads: Heads of keys and values.
        head_dim: Width of a head.
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
    d_mlp: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
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
    with FakeTensorMode():
        model: Any = _built(about)
    text = about.get_text_config()
    blocks, head = find_blocks(model), model.get_output_embeddings()
    linear = [
        (module.weight.numel(), _outputs(module))
        for module in model.modules()
        if type(module) in (nn.Linear, Conv1D) and module is not head
    ]
    n_linear_parameters = sum(size for size, _ in linear)
    n_heads = text.num_attention_heads
    half = _kept_by_a_block(about, torch.bfloat16)
    return Shape(
        n_layers=len(blocks),
        d_model=text.hidden_size,
        d_mlp=getattr(text, "intermediate_size", None) or max(width for _, width in linear),
        n_heads=n_heads,
        n_kv_heads=getattr(text, "num_key_value_heads", None) or n_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // n_heads,
        vocab_size=text.vocab_size,
        context=getattr(text, "max_position_embeddings", None),
        linear_parameters=n_linear_parameters,
        n_linear=len(linear),
        linear_outputs=sum(width for _, width in linear),
        largest_linear=max((size for size, _ in linear), default=0),
        other_parameters=sum(p.numel() for p in model.parameters()) - n_linear_parameters,
        buffer_bytes=sum(b.numel() * b.element_size() for b in model.buffers()),
        kept_fp32=_kept_or(half.doubled(), about),
        kept_half=half,
        kept_autocast=_kept_or(half, about, autocast=True),
    )


def _built(about: PreTrainedConfig) -> PreTrainedModel:
    """The model in 32 bits: for another format transformers changes torch's default meanwhile.

    That default belongs to the process, so another thread that loads a base would take it up.
    """
    return AutoModelForCausalLM.from_config(copy.deepcopy(about), dtype=torch.float32)


def _convert(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Frozen parameters in another format; `model.to` cannot exchange those of fake tensors."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            module.register_parameter(name, nn.Parameter(parameter.to(dtype), requires_grad=False))


def _outputs(linear: nn.Module) -> int:
    """Width of a linear layer's output; GPT-2 stores the matrix the other way round."""
    assert isinstance(linear.weight, Tensor)
    return linear.weight.shape[1] if isinstance(linear, Conv1D) else linear.weight.shape[0]


def _kept_or(
    otherwise: BlockBytes, about: PreTrainedConfig, *, autocast: bool = False
) -> BlockBytes:
    """What a block keeps in 32 bits; of mixtures of experts fake tensors know 16 bits alone."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    was_disabled, log.disabled = log.disabled, True
    try:
        return _kept_by_a_block(about, torch.float32, autocast=autocast)
    except RuntimeError:
        return otherwise
    finally:
        log.disabled = was_disabled


def _kept_by_a_block(
    about: PreTrainedConfig, dtype: torch.dtype, *, autocast: bool = False
) -> BlockBytes:
    """Run the first block on fake tensors of three lengths; the three numbers follow."""
    with FakeTensorMode():
        model = _built(about)
        _convert(model.eval(), dtype)
        blocks = find_blocks(model)
        del blocks[1:]
        with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
            kept = [_kept_bytes(model, blocks[0], length) for length in _PROBES]
    fixed, token, pair = np.linalg.solve(np.vander(_PROBES, 3, increasing=True), kept)
    return BlockBytes(float(fixed), float(token), float(pair))


def _kept_bytes(model: PreTrainedModel, block: nn.Module, length: int) -> int:
    """Bytes that a block keeps for one row, each storage once, without parameters."""
    kept: dict[int, UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # held, so that its address is not given away again
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
        kept.pop(parameter.untyped_storage()._cdata, None)
    return sum(storage.nbytes() for storage in kept.values())
