"""Frozen base models: the shipped pocket, a local folder or a Hub id, through one code path.

Remote code is never trusted and pickled weights are never read.
"""

import hashlib
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
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import set_tqdm_hook

from csreft_core.base_checks import Conduct, tried
from csreft_core.base_files import (
    Progress,
    base_folder,
    check_weights,
    first_line,
    read_description,
    silent,
)
from csreft_core.blocks import find_blocks
from csreft_core.config import BaseConfig
from csreft_core.devices import compute_type, free_bytes, resolve_device
from csreft_core.errors import NotEnoughMemoryError, UnsupportedModelError
from csreft_core.memory import in_gb, weight_bytes
from csreft_core.out_of_memory import is_out_of_memory, memory_errors
from csreft_core.quantization import hold_in_training_mode, settings
from csreft_core.shapes import shape_of_description
from csreft_core.tokenisers import load_tokenizer, pad_token

_SMALLER = "use base.precision nf4 or a smaller model, or free some memory"
_MOST_GROWTH = 4  # from a file in 8 bits to 32 bits in memory
_one_load = RLock()


@dataclass(frozen=True)
class Base:
    """A loaded, frozen language model in evaluation mode.

    `blocks` are its decoder blocks in order; layer l is the output of `blocks[l]`.
    `conduct` is what was seen of it when it was tried.
    `n_parameters` counts all weights, shared ones once.
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
    device = resolve_device(config.device)
    folder = base_folder(config, progress)
    progress("reading the description", 0, 0)
    about = read_description(config, folder)
    check_weights(config, folder)
    tokenizer = load_tokenizer(folder, f"base.path {config.path!r}")
    with _one_load:
        if config.check_memory:
            _check_fits(config, about, folder)
        with memory_errors(f"loading {config.path!r}", device, lambda: _SMALLER):
            model = _weights(config, folder, progress)
    progress("looking at the model", 0, 0)
    with memory_errors(f"trying {config.path!r}", device, lambda: _SMALLER):
        return freeze(model, tokenizer, base_id=config.path, revision=config.revision)


def _check_fits(config: BaseConfig, about: PreTrainedConfig, folder: Path) -> None:
    """See that the weights alone fit; a training needs more, see `memory.need`."""
    free = free_bytes(config.device)
    if _MOST_GROWTH * sum(path.stat().st_size for path in folder.glob("*.safetensors")) < free:
        return
    needed = weight_bytes(shape_of_description(about), config)
    if needed > free:
        raise NotEnoughMemoryError(
            f"base.path {config.path!r} needs about {in_gb(needed)} for its weights in "
            f"{config.precision}, {in_gb(free)} are free; {_SMALLER} "
            "(base.check_memory=false tries it all the same)"
        )


def _weights(config: BaseConfig, folder: Path, progress: Progress) -> PreTrainedModel:
    """The model with its weights on their devices."""
    compute = compute_type(config)
    quantization = settings(config.precision, compute)
    with _watched(progress) as stopped:
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=compute,
                quantization_config=quantization,
                device_map=_places(config),
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            if error in stopped or is_out_of_memory(error):
                raise
            raise UnsupportedModelError(
                f"base.path {config.path!r}: its weights cannot be loaded ({first_line(error)}); "
                "copy or fetch the whole folder again"
            ) from None
    model, report = loaded
    if report["missing_keys"]:
        # transformers fills them with random numbers and only warns.
        raise UnsupportedModelError(
            f"base.path {config.path!r} lacks {len(report['missing_keys'])} of its weights, such "
            f"as {min(report['missing_keys'])}; copy the whole folder again"
        )
    return model


def _places(config: BaseConfig) -> str | dict[str, torch.device]:
    """Where the weights go; accelerate spreads whole blocks over the GPUs for `balanced`."""
    device = resolve_device(config.device)
    return config.device if config.device == "balanced" else {"": device}


@contextmanager
def _watched(progress: Progress) -> Iterator[list[BaseException]]:
    """Tells how many tensors are loaded; yields a list for what `progress` raises.

    transformers walks over the tensors under a progress bar, for which it takes a hook.
    """
    stopped: list[BaseException] = []
    thread = get_ident()

    def bar(make: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if get_ident() != thread or not args or kwargs.get("desc") != "Loading weights":
            return make(*args, **kwargs)
        return counted(args[0])

    def counted(tensors: Any) -> Iterator[Any]:
        total = len(tensors)
        for done, tensor in enumerate(tensors):
            tell(done, total)
            yield tensor
        tell(total, total)

    def tell(done: int, total: int) -> None:
        try:
            progress("loading weights", done, total)
        except BaseException as error:
            stopped.append(error)
            raise

    before = set_tqdm_hook(bar)
    try:
        yield stopped
    finally:
        set_tqdm_hook(before)


def freeze(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    base_id: str,
    revision: str | None = None,
) -> Base:
    """Freeze a model, find its blocks and try it (`base_checks`).

    Raises:
        UnsupportedModelError: blocks that cannot be found, or a model that cannot run or be edited.
    """
    model.eval().requires_grad_(False)
    hold_in_training_mode(model)
    blocks = find_blocks(model)
    width = model.config.get_text_config().hidden_size
    return Base(
        model=model,
        tokenizer=tokenizer,
        id=base_id,
        revision=revision,
        fingerprint=fingerprint(model),
        blocks=blocks,
        conduct=tried(model, base_id),
        d_model=int(width),
        n_parameters=model.num_parameters(),
    )


@torch.no_grad()
def fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 over the names of all weights and the embedding's values in bfloat16.

    Loading the same weights at another precision or on another device gives the same value.
    """
    digest = hashlib.sha256()
    digest.update("\n".join(sorted(name for name, _ in model.named_parameters())).encode())
    embedding = model.get_input_embeddings()
    assert isinstance(embedding.weight, Tensor)
    table = embedding.weight.detach().to(torch.bfloat16).cpu().contiguous()
    digest.update(str(tuple(table.shape)).encode())
    digest.update(table.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
