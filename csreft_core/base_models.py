"""Frozen base models: the shipped pocket, a local folder or a Hub id, through one code path.

Remote code is never trusted and pickled weights are never read.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from csreft_core.config import ASSETS, BaseConfig
from csreft_core.errors import UnsupportedModelError
from csreft_core.quantization import hold_in_training_mode, settings

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Base:
    """A loaded, frozen language model in evaluation mode.

    `blocks` are its decoder blocks in order; layer l is the output of `blocks[l]`.
    `n_parameters` counts all weights, shared ones once.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    id: str
    revision: str | None
    fingerprint: str
    blocks: nn.ModuleList
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
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if isinstance(token, int):
                return token
        return 0


def resolve_device(device: str) -> torch.device:
    """The device of a setting; `auto` is CUDA where there is one, else the CPU.

    Raises:
        UnsupportedModelError: a device that this machine does not have.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UnsupportedModelError(
            f"base.device is {device!r}, but this machine does not have it; use 'auto' or 'cpu'"
        )
    return chosen


def _compute_type(config: BaseConfig, device: torch.device) -> torch.dtype:
    """The number format of the arithmetic, and of the weights that are not quantised."""
    if config.precision in _DTYPES:
        return _DTYPES[config.precision]
    if config.compute != "auto":
        return _DTYPES[config.compute]
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def load_base(config: BaseConfig) -> Base:
    """Load a frozen base.

    Raises:
        UnsupportedModelError: not found, not a decoder-only causal language model, without
            safetensors weights, or with blocks that cannot be found.
    """
    device = resolve_device(config.device)
    compute = _compute_type(config, device)
    quantization = settings(config.precision, compute)
    source = str(ASSETS / "pocket") if config.path == "pocket" else config.path
    if source.startswith((".", "/", "~")) or Path(source).expanduser().exists():
        source = str(Path(source).expanduser())
        if not (Path(source) / "config.json").is_file():
            raise UnsupportedModelError(
                f"base.path {config.path!r}: no folder with a config.json; give 'pocket', a folder "
                "that transformers saved, or a Hub id"
            )
    try:
        about = AutoConfig.from_pretrained(
            source, revision=config.revision, trust_remote_code=False
        )
        if getattr(about, "is_encoder_decoder", False):
            raise UnsupportedModelError(
                f"base.path {config.path!r} is an encoder-decoder model; a decoder-only causal "
                "language model is needed"
            )
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=config.revision, trust_remote_code=False
        )
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            revision=config.revision,
            dtype=compute,
            quantization_config=quantization,
            device_map={"": device} if quantization else None,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnsupportedModelError(
            f"base.path {config.path!r} cannot be loaded: {first[:300]}; give 'pocket', a folder "
            "that transformers saved, or a Hub id that this machine has or can reach"
        ) from None
    model, report = loaded
    if report["missing_keys"]:
        # transformers fills them with random numbers and only warns.
        raise UnsupportedModelError(
            f"base.path {config.path!r} lacks {len(report['missing_keys'])} of its weights, such "
            f"as {min(report['missing_keys'])}; copy the whole folder again"
        )
    if quantization is None:
        model = model.to(device)
    return freeze(model, tokenizer, base_id=config.path, revision=config.revision)


def freeze(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    base_id: str,
    revision: str | None = None,
) -> Base:
    """Freeze a model and find its blocks.

    Raises:
        UnsupportedModelError: blocks that cannot be found.
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
        d_model=int(width),
        n_parameters=model.num_parameters(),
    )


def find_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The list of decoder blocks, found from the module tree.

    It is the only `ModuleList` with one module for each layer that the model's configuration
    counts and that does not lie inside another such list.

    Raises:
        UnsupportedModelError: none or several.
    """
    n = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    found: dict[str, nn.ModuleList] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, nn.ModuleList) and len(module) == n and not inside:
            found[name] = module
    if len(found) != 1:
        listed = ", ".join(found) if found else "none"
        raise UnsupportedModelError(
            f"{type(model).__name__}: expected one list of {n} decoder blocks, found {listed}; "
            "only models whose blocks form one list can be edited"
        )
    return next(iter(found.values()))


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
