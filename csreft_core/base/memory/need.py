r"""How much memory a model needs, before any of its weights is read, and a setting that fits.

The parts of a `Need` follow from the `Shape` of the model (`shapes`), the configuration and the
size of a batch. All sizes are bytes. `memory.use` measures what is really used.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from csreft_core.base.devices import compute_type, free_bytes, resolve_device
from csreft_core.base.quantization import QUANTIZED
from csreft_core.base.shapes import BlockBytes, Shape, shape_of
from csreft_core.config import BaseConfig, Config
from csreft_core.reft.adapter import build_adapter, parameter_counts
from csreft_core.reft.positions import parse_positions

__all__ = ["Need", "Shape", "free_bytes", "need", "shape_of", "smaller_setting"]

_CUDA_CONTEXT_BYTES = 500 * 2**20
_SHORTEST = 32
_SUBSPACES = 4


@dataclass(frozen=True)
class Need:
    """Bytes that are needed, in parts.

    Attributes:
        weights: The base's, as they are stored, quantised ones with their scales.
        adapter: The adapter's parameters, in 32 bits.
        optimizer: Its gradients and AdamW's two moments; 0 outside training.
        activations: What the forward keeps for the backward pass, or the key-value cache.
        logits: Scores of the vocabulary at the answer's tokens, and their softmax and gradient.
        margin: For short-lived tensors and gaps between tensors.
    """

    weights: int
    adapter: int
    optimizer: int
    activations: int
    logits: int
    margin: int

    @property
    def total(self) -> int:
        """All of it."""
        return (
            self.weights
            + self.adapter
            + self.optimizer
            + self.activations
            + self.logits
            + self.margin
        )


def need(
    shape: Shape,
    config: Config,
    *,
    batch: int,
    length: int,
    answer: int,
    training: bool = True,
    n_skills: int = _SUBSPACES,
) -> Need:
    r"""Bytes for a training step, or for answering prompts.

    With e bytes a number in the base's arithmetic, d the width, V the vocabulary, P the
    parameters of the adapter, B rows of n tokens, a of them answer:

    - weights: e a parameter; a 4-bit weight takes 1/2, with 1 byte for 64 weights and 4 for 16,384
      (double quantisation) and 1,092 for each matrix; an 8-bit weight takes 1, with 4 for each
      output.
    - adapter: $4 P$. Optimiser: $12 P$ (gradient and two moments).
    - activations: the gradient flows from the first edited layer up, so the L blocks above it keep
      `BlockBytes`, and each edited layer the states that it edits, $4 d$ a site. With checkpointing
      they keep their input, $e B n d$, and one block at a time all of it.
    - logits: $B a V$ numbers.
    - outside training: keys and values, $2 e B n$ a layer and each number of a key, in place of
      activations, and the logits of one token.

    What `train.keep_states` keeps comes on top, in main memory. The activations of tokens that do
    not run for it are counted all the same, for not every base allows it.

    Args:
        shape: Of the base.
        config: The base's precision and device, the adapter, the training.
        batch: Rows at a time: `train.batch_size` over processes and `train.accumulate`.
        length: Tokens of a row, with the answer.
        answer: Tokens of the longest answer.
        training: Whether a gradient is needed.
        n_skills: Subspaces, where the config leaves their number to the data.

    Raises:
        ConfigError: an adapter that does not fit the base.
    """
    adapter_bytes = _trained_bytes(shape, config, n_skills)
    e = compute_type(config.base).itemsize
    if training:
        activations = _activation_bytes(shape, config, batch, length)
        logits = batch * answer * shape.vocab_size * (e + 8)
        optimizer = 3 * adapter_bytes
    else:
        per_token = 2 * shape.n_layers * shape.d_cached * e
        activations, logits = batch * length * per_token, batch * shape.vocab_size * (e + 4)
        optimizer = 0
    return Need(
        weights=weight_bytes(shape, config.base),
        adapter=adapter_bytes,
        optimizer=optimizer,
        activations=round(activations),
        logits=logits,
        margin=_margin(shape, config, round(activations) + logits + adapter_bytes + optimizer),
    )


def weight_bytes(shape: Shape, base: BaseConfig) -> int:
    """Bytes of a base's weights at its precision, see `need`."""
    e = compute_type(base).itemsize
    other = shape.other_parameters * e + shape.buffer_bytes
    n = shape.linear_parameters
    if base.precision not in QUANTIZED:
        return other + n * e
    if base.precision == "int8":
        return other + n + 4 * shape.linear_outputs
    return other + n // 2 + n // 64 + 4 * (n // 16384) + 1092 * shape.n_linear


def _trained_bytes(shape: Shape, config: Config, n_skills: int) -> int:
    """Bytes of the adapter's parameters: it is built, for it is small."""
    k = config.adapter.n_subspaces or n_skills
    adapter = build_adapter(
        config,
        d_model=shape.d_model,
        n_layers=shape.n_layers,
        skills=tuple(f"skill {i}" for i in range(k)),
        base_fingerprint="",
    )
    return 4 * parameter_counts(adapter)["total"]


def _activation_bytes(shape: Shape, config: Config, batch: int, length: int) -> float:
    """What the forward keeps for the backward pass, without the logits."""
    e, layers = compute_type(config.base).itemsize, config.adapter.layers
    n_above = shape.n_layers - 1 - min(layers)
    n_states = batch * length * shape.d_model
    block = _block_bytes(shape, config).of(batch, length)
    blocks = n_above * block
    if config.train.checkpointing:
        blocks = n_above * n_states * e + min(n_above, 1) * block
    rule = parse_positions(config.adapter.positions)
    n_sites = length if rule.everything else min(length, rule.prefix + rule.suffix)
    edits = len(layers) * batch * n_sites * shape.d_model * 4
    return blocks + edits + 4 * n_states  # the last: what the norm before the head keeps


def _block_bytes(shape: Shape, config: Config) -> BlockBytes:
    if compute_type(config.base) != torch.float32:
        return shape.kept_half
    return shape.kept_autocast if config.train.autocast == "bf16" else shape.kept_fp32


def _margin(shape: Shape, config: Config, moving: int) -> int:
    """A tenth of what comes and goes, a 4-bit matrix while it is multiplied, CUDA's own needs."""
    margin = moving // 10
    if config.base.precision in ("nf4", "fp4"):
        margin += shape.largest_linear * compute_type(config.base).itemsize
    if resolve_device(config.base.device).type == "cuda":
        margin += _CUDA_CONTEXT_BYTES
    return margin


def training_need(
    shape: Shape, config: Config, *, longest: int | None = None, answer: int | None = None
) -> Need:
    """Bytes for a micro-batch of a training.

    Args:
        shape: Of the base.
        config: Of the training.
        longest: Tokens of the longest row; as many as the config allows if not given.
        answer: Tokens of the longest answer; a quarter of the row if not given.
    """
    most = row_length(shape, config)
    length = min(most, longest or most)
    answer = min(length, answer or length // 4)
    return need(shape, config, batch=rows_at_a_time(config), length=length, answer=answer)


def smaller_setting(
    shape: Shape,
    config: Config,
    free: int,
    *,
    longest: int | None = None,
    answer: int | None = None,
) -> Config | None:
    """The least change that makes a training fit into free memory.

    First what gives the same loss: more micro-batches (`train.accumulate`), then checkpointing.
    Then 4-bit weights, and at last shorter rows, which lose data. Each time as many rows at a time
    as fit.

    Args:
        shape: Of the base.
        config: What is wanted; returned as it is where it fits.
        free: Bytes.
        longest: See `training_need`.
        answer: See `training_need`.

    Returns:
        None where nothing fits.
    """
    for candidate in _candidates(shape, config):
        if training_need(shape, candidate, longest=longest, answer=answer).total <= free:
            return candidate
    return None


def rows_at_a_time(config: Config) -> int:
    """Rows of a micro-batch, in one process."""
    return -(-config.train.batch_size // config.train.accumulate)


def row_length(shape: Shape, config: Config) -> int:
    """Most tokens of a row: what the config says or the base can read."""
    return min(config.train.max_length, shape.context or config.train.max_length)


def _candidates(shape: Shape, config: Config) -> Iterator[Config]:
    t, base = config.train, config.base
    in_4_bits = base
    if base.precision not in QUANTIZED:
        in_4_bits = replace(base, precision="nf4", compute=base.precision)
    for other_base, checkpointing in ((base, t.checkpointing), (base, True), (in_4_bits, True)):
        n = t.accumulate
        while n <= t.batch_size:
            other = replace(t, checkpointing=checkpointing, accumulate=n)
            yield replace(config, base=other_base, train=other)
            n = t.batch_size if n < t.batch_size < 2 * n else 2 * n
    length = row_length(shape, config) // 2
    while length >= _SHORTEST:
        other = replace(t, checkpointing=True, accumulate=t.batch_size, max_length=length)
        yield replace(config, base=in_4_bits, train=other)
        length //= 2


def in_gb(n_bytes: int) -> str:
    """Bytes for a reader: `3.9 GB`, `45 MB`, `0.3 MB`; 1 GB is 10⁹ bytes."""
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:.1f} GB"
    return f"{n_bytes / 1e6:.{0 if n_bytes >= 1e7 else 1}f} MB"
