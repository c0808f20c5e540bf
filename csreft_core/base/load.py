"""Frozen base models: a known one, a local folder or a Hub id, through one code path.

Remote code is never trusted and pickled weights are never read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock, get_ident
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import set_tqdm_hook

from csreft_core.base.blocks import find_blocks
from csreft_core.base.checks import Conduct, conduct_of
from csreft_core.base.decoding import end_tokens, greedy, of_config, read_own, take_over
from csreft_core.base.devices import compute_type, free_bytes, resolve_device
from csreft_core.base.fetched import COMMAND
from csreft_core.base.files import (
    Progress,
    base_folder,
    description_tree,
    hub_bytes,
    read_description,
    silent,
)
from csreft_core.base.fingerprint import hashing, identity
from csreft_core.base.memory.exhausted import is_out_of_memory, memory_errors
from csreft_core.base.memory.need import in_gb, weight_bytes
from csreft_core.base.quantization import hold_in_training_mode, settings
from csreft_core.base.shapes import shape_of_description
from csreft_core.base.text.tokenisers import load_tokenizer, pad_token
from csreft_core.base.weights import WeightFiles, check_claims, find_weights
from csreft_core.config import BaseConfig, known_bases
from csreft_core.errors import NotEnoughMemoryError, UnsupportedModelError, first_line
from csreft_core.reft.base_record import Identity, differences

_SMALLER = "use base.precision nf4 or a smaller model, or free some memory"
_MOST_GROWTH = 4  # from a file in 8 bits to 32 bits in memory
_one_load = RLock()


@dataclass(frozen=True)
class Base:
    """A loaded, frozen language model in evaluation mode.

    `blocks` are its decoder blocks in order; layer l is the output of `blocks[l]`. `conduct` is
    what was seen of it when it was tried. `n_parameters` counts all weights, shared ones once.
    `ends` are the tokens that end an answer, first the one that training writes. `fingerprint` says
    which base it is (see `base_record`). `own_decoding` are settings that the base brings and that
    nothing follows unless it is asked to (see `decoding`).
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    id: str
    revision: str | None
    fingerprint: str
    blocks: nn.ModuleList
    conduct: Conduct
    d_model: int
    n_parameters: int
    ends: tuple[int, ...]
    own_decoding: dict[str, Any]

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.blocks)

    @property
    def device(self) -> torch.device:
        """Where its inputs go."""
        return self.model.device

    @property
    def context(self) -> int | None:
        """Most tokens that it can read; None where its configuration names no limit."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    @property
    def pad_id(self) -> int:
        """Token to pad with; it is always masked."""
        return pad_token(self.tokenizer, self.vocabulary)

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding: every token is a number below it."""
        weight = self.model.get_input_embeddings().weight
        assert isinstance(weight, Tensor)
        return len(weight)

    def greedy(self, max_new_tokens: int, **changes: Any) -> GenerationConfig:
        """Greedy decoding up to an end token, see `decoding.greedy`."""
        return greedy(max_new_tokens, self.ends, self.pad_id, **changes)

    def exactly(self, n_tokens: int) -> GenerationConfig:
        """Greedy decoding of so many tokens; an end token is one like others."""
        return greedy(n_tokens, (), self.pad_id)


def load_base(config: BaseConfig, progress: Progress = silent) -> Base:
    """Load a frozen base.

    One base loads at a time: two that look at the free memory together would take it twice. The
    weights go straight to their device, one tensor after another.

    Args:
        config: Which base, in which number format, on which device.
        progress: Told what is done and how far it is, in the thread that loads or fetches. What
            it raises ends the load; files that are fetched by then stay in the Hub's cache, and
            nothing else stays.

    Raises:
        UnsupportedModelError: not found, not a decoder-only causal language model, without
            safetensors weights, or with blocks that cannot be found.
        NotEnoughMemoryError: the weights alone need more than is free.
    """
    device, name = resolve_device(config.device), f"base.path {config.path!r}"
    progress("reading the description", 0, 0)
    folder = base_folder(config, progress, weights=False)
    about = read_description(config, folder)
    if config.check_memory:
        _check_fits(config, about, hub_bytes(config))
    folder = base_folder(config, progress)
    files = find_weights(name, folder)
    check_claims(name, about, files)
    own = read_own(name, folder)
    tokenizer = load_tokenizer(folder, name)
    with _one_load:
        if config.check_memory:
            _check_fits(config, about, _bytes(files))
        with memory_errors(f"loading {config.path!r}", device, lambda: _SMALLER):
            model, record = _model_and_record(config, folder, files, tokenizer, progress)
    progress("looking at the model", 0, 0)
    _check_declared(config.path, record)
    with memory_errors(f"trying {config.path!r}", device, lambda: _SMALLER):
        return freeze(
            model,
            tokenizer,
            base_id=config.path,
            revision=config.revision,
            own_decoding=own,
            record=record,
        )


def _check_declared(path: str, record: Identity) -> None:
    """See that a fetched base is the one that was declared; its files may have been damaged."""
    known = known_bases().get(path)
    if known is None or known.wheel is None:
        return
    parts = differences(known.wheel.fingerprint, record.text())
    if parts:
        raise UnsupportedModelError(
            f"base.path {path!r} has other {' and '.join(parts)} than it should have; run: "
            f"{COMMAND} {path}"
        )


def _bytes(files: WeightFiles) -> int:
    return sum(path.stat().st_size for path in files.paths)


def _check_fits(config: BaseConfig, about: PreTrainedConfig, n_stored: int | None) -> None:
    """See that the weights alone fit; a training needs more, see `base.memory.need`."""
    free = free_bytes(config.device)
    if n_stored is None or _MOST_GROWTH * n_stored < free:
        return
    n_needed = weight_bytes(shape_of_description(about), config)
    if n_needed > free:
        raise NotEnoughMemoryError(
            f"base.path {config.path!r} needs about {in_gb(n_needed)} for its weights in "
            f"{config.precision}, {in_gb(free)} are free; {_SMALLER} "
            "(base.check_memory=false tries it all the same)"
        )


def _model_and_record(
    config: BaseConfig,
    folder: Path,
    files: WeightFiles,
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress,
) -> tuple[PreTrainedModel, Identity]:
    """The model and the record of what it is; its files are hashed while it loads."""
    with hashing(files.paths) as digests:
        model, unused = _weights(config, folder, progress)
        tree = description_tree(config, folder)
        return model, identity(model, tokenizer, digests(), tree, unused)


def _weights(
    config: BaseConfig, folder: Path, progress: Progress
) -> tuple[PreTrainedModel, set[str]]:
    """The model with its weights on their devices, and which tensors of the files it leaves."""
    compute = compute_type(config)
    quantization = settings(config.precision, compute)
    with _watch_tensors(progress) as errors:
        try:
            result: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=compute,
                quantization_config=quantization,
                device_map=device_map(config),
                use_safetensors=True,
                trust_remote_code=False,
                generation_config=GenerationConfig(),  # the base's own is read by `decoding`
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            if error in errors or is_out_of_memory(error):
                raise
            raise UnsupportedModelError(
                f"base.path {config.path!r}: its weights cannot be loaded ({first_line(error)}); "
                "copy or fetch the whole folder again"
            ) from None
    model, report = result
    if report["missing_keys"]:
        # transformers fills them with random numbers and only warns.
        raise UnsupportedModelError(
            f"base.path {config.path!r} lacks {len(report['missing_keys'])} of its weights, such "
            f"as {min(report['missing_keys'])}; copy the whole folder again"
        )
    return model, set(report["unexpected_keys"])


def device_map(config: BaseConfig) -> str | dict[str, torch.device]:
    """Where the weights go; accelerate spreads whole blocks over the GPUs for `balanced`."""
    device = resolve_device(config.device)
    return config.device if config.device == "balanced" else {"": device}


@contextmanager
def _watch_tensors(progress: Progress) -> Iterator[list[BaseException]]:
    """Tells how many tensors are loaded; yields a list for what `progress` raises.

    transformers walks over the tensors under a progress bar, for which it takes a hook.
    """
    errors: list[BaseException] = []
    thread = get_ident()

    def bar(make: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if get_ident() != thread or not args or kwargs.get("desc") != "Loading weights":
            return make(*args, **kwargs)
        return count(args[0])

    def count(tensors: Any) -> Iterator[Any]:
        total = len(tensors)
        for done, tensor in enumerate(tensors):
            tell(done, total)
            yield tensor
        tell(total, total)

    def tell(done: int, total: int) -> None:
        try:
            progress("loading weights", done, total)
        except BaseException as error:
            errors.append(error)
            raise

    before = set_tqdm_hook(bar)
    try:
        yield errors
    finally:
        set_tqdm_hook(before)


def freeze(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    base_id: str,
    revision: str | None = None,
    own_decoding: dict[str, Any] | None = None,
    record: Identity | None = None,
) -> Base:
    """Freeze a model, find its blocks and try it (`base.checks`); it loses its decoding settings.

    Args:
        model: Changed in place.
        tokenizer: The one that belongs to it.
        base_id: Name for messages.
        revision: Of a Hub id.
        own_decoding: Settings of the base's files, else those of the model.
        record: The record of what it is; else its weights in memory are hashed.

    Raises:
        UnsupportedModelError: blocks that cannot be found, or a model that cannot run or be edited.
    """
    model.eval().requires_grad_(False)
    hold_in_training_mode(model)
    blocks = find_blocks(model)
    width = model.config.get_text_config().hidden_size
    own = of_config(model.generation_config) if own_decoding is None else own_decoding
    ends, table = end_tokens(model, tokenizer, own), model.get_input_embeddings().weight
    assert isinstance(table, Tensor)
    take_over(model, ends, pad_token(tokenizer, len(table)))
    return Base(
        model=model,
        tokenizer=tokenizer,
        id=base_id,
        revision=revision,
        fingerprint=(record or identity(model, tokenizer)).text(),
        blocks=blocks,
        conduct=conduct_of(model, base_id),
        d_model=int(width),
        n_parameters=model.num_parameters(),
        ends=ends,
        own_decoding=own,
    )
