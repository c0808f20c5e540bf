"""The files of a base: a known one, a local folder, or a Hub id that is fetched first.

Everything is read from a folder afterwards, so there is one way to load. Remote code is never
trusted; pickled weights are neither fetched nor read.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants as hub
from huggingface_hub import DryRunFileInfo, snapshot_download
from huggingface_hub.errors import (
    DryRunError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage] - of the library that it uses
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm.asyncio import tqdm_asyncio
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers import __version__ as transformers_version
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from csreft_core.base.fetched import fetched_folder, what_is_wrong
from csreft_core.config import BaseConfig, known_bases
from csreft_core.errors import UnsupportedModelError, first_line

Progress = Callable[[str, int, int], None]
"""Told what is done now, how much of it is done, and of how much (0: not known). What it raises
ends the load and comes out of it as it is."""

CHOICES = "give 'pocket', 'smollm2', a folder that transformers saved, or a Hub id"
_WEIGHTS = ("model.safetensors", "model-*.safetensors")
_MOST_BLOCKS = 2000  # more than ten times as many as any known base has
_DESCRIPTION = ("*.json", "*.model", "*.txt", "*.jinja")


def silent(_phase: str, _done: int, _total: int) -> None:
    """The progress of a load that nobody watches."""


def base_folder(config: BaseConfig, progress: Progress = silent, *, weights: bool = True) -> Path:
    """The folder with the base's files; those of a Hub id are fetched into the Hub's cache.

    Args:
        config: Names the base.
        progress: Told of the bytes that are fetched.
        weights: Whether the weights and the tokeniser are needed, or the description alone.

    Raises:
        UnsupportedModelError: no such folder or repository, no permission, no network, or a base
            that `fetch-base` has to bring first.
    """
    known = known_bases().get(config.path)
    if weights and known is not None and known.wheel is not None and (why := what_is_wrong(known)):
        raise UnsupportedModelError(why)
    local = _local(config, weights=weights)
    if local is None:
        return _fetch(config, progress, weights=weights)
    if not (local / "config.json").is_file():
        raise UnsupportedModelError(
            f"base.path {config.path!r}: no folder with a config.json; {CHOICES}"
        )
    return local


def _local(config: BaseConfig, *, weights: bool) -> Path | None:
    """The folder that a path names; of a fetched base it may be the description; None: a Hub id."""
    path, known = config.path, known_bases().get(config.path)
    if known is not None and not known.config:
        fetched = known.wheel is not None and weights
        return fetched_folder(known) if fetched else known.shipped_folder
    local = Path(path).expanduser()
    return local if path.startswith((".", "/", "~")) or os.path.lexists(local) else None


def stored_bytes(config: BaseConfig) -> int | None:
    """Bytes of the weights of a base that lies in a folder; None of others, and where none are."""
    folder = _local(config, weights=True)
    sizes = [path.stat().st_size for path in folder.glob("*.safetensors")] if folder else []
    return sum(sizes) or None


def hub_bytes(config: BaseConfig) -> int | None:
    """Bytes of the weights of a Hub id, before they are fetched; None for a folder, or offline.

    Raises:
        UnsupportedModelError: no weights in safetensors, or a disk that they do not fit on.
    """
    if _local(config, weights=True) is not None:
        return None
    try:
        infos = snapshot_download(
            config.path,
            revision=config.revision,
            allow_patterns=[*_DESCRIPTION, *_WEIGHTS],
            tqdm_class=_bar_that_tells(silent),
            dry_run=True,
        )
    except (DryRunError, LocalEntryNotFoundError):
        return None  # no network: what is in the cache is taken
    except (HTTPError, HFValidationError) as error:
        raise UnsupportedModelError(_hub_message(config, error)) from None
    files = [file for file in infos if isinstance(file, DryRunFileInfo)]
    _check_hub_files(config, files)
    return sum(file.file_size or 0 for file in files if file.filename.endswith(".safetensors"))


def _check_hub_files(config: BaseConfig, files: list[DryRunFileInfo]) -> None:
    name = f"base.path {config.path!r}"
    if not any(file.filename.endswith(".safetensors") for file in files):
        raise UnsupportedModelError(
            f"{name}: the Hub has no weights of it in safetensors; pickled ones are never read "
            "because they can run code; choose a model that has"
        )
    missing = sum(file.file_size or 0 for file in files if file.will_download)
    cache = Path(hub.HF_HUB_CACHE)
    there = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if missing > free:
        raise UnsupportedModelError(
            f"{name}: {missing / 1e9:.1f} GB are to be fetched, but the disk of {there} has "
            f"{free / 1e9:.1f} GB left; make room, or set HF_HUB_CACHE to a folder on another disk"
        )


def _fetch(config: BaseConfig, progress: Progress, *, weights: bool) -> Path:
    """The snapshot of a Hub id in the Hub's cache. What was fetched before a break is kept."""
    progress("looking at the Hub", 0, 0)
    try:
        folder = snapshot_download(
            config.path,
            revision=config.revision,
            allow_patterns=[*_DESCRIPTION, *_WEIGHTS] if weights else ["config.json"],
            tqdm_class=_bar_that_tells(progress if weights else silent),
        )
    except (HTTPError, LocalEntryNotFoundError, HFValidationError) as error:
        raise UnsupportedModelError(_hub_message(config, error)) from None
    if not (Path(folder) / "config.json").is_file():
        raise UnsupportedModelError(f"base.path {config.path!r}: the Hub has no config.json of it")
    return Path(folder)


def _bar_that_tells(progress: Progress) -> type[tqdm_asyncio]:
    """A progress bar that is not drawn. Several bars count the same bytes, in several ways."""
    most = {"done": 0, "total": 0}

    class Bar(tqdm_asyncio):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.counts_bytes = kwargs.get("unit") == "B"
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: int | float | None = 1) -> None:
            self.n += n or 0
            if self.counts_bytes:
                most["done"] = max(most["done"], int(self.n))
                most["total"] = max(most["total"], int(self.total or 0))
                progress("fetching from the Hub", most["done"], most["total"])

    return Bar


def _hub_message(config: BaseConfig, error: Exception) -> str:
    """What went wrong with a Hub id, and what to do."""
    name = f"base.path {config.path!r}"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, GatedRepoError):
        return (
            f"{name} is gated: its owner asks for consent; open https://huggingface.co/{config.path}"
            ", accept the terms, then log in here with `hf auth login`"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{name} has no revision {config.revision!r}; look at its branches and tags"
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        # The Hub answers 401 for what does not exist too, so that nobody can ask for names.
        return (
            f"{name}: the Hub has no such repository, or it is private and no token that may read "
            f"it is set; check the name, or log in with `hf auth login`; {CHOICES}"
        )
    if isinstance(error, HFValidationError):
        return f"{name}: neither a folder nor a Hub id; {CHOICES}"
    if isinstance(error, IncompleteSnapshotError):
        return (
            f"{name} is only in part on this machine and the Hub cannot be reached; connect to the "
            "network and load it once, or unset HF_HUB_OFFLINE"
        )
    if isinstance(error, LocalEntryNotFoundError):
        return (
            f"{name} is not on this machine and the Hub cannot be reached; connect to the network "
            f"(or unset HF_HUB_OFFLINE), or {CHOICES.replace('give', 'choose')} that is here"
        )
    first = first_line(error, 200)
    return f"{name}: the Hub answered {status or 'nothing'} ({first}); try again later"


def read_description(config: BaseConfig, folder: Path) -> PreTrainedConfig:
    """The base's `config.json`, if it describes a decoder that this program can load.

    Raises:
        UnsupportedModelError: not JSON, an architecture that transformers does not know, code of
            its own, an encoder, an encoder-decoder, or weights that are quantised already.
    """
    name = f"base.path {config.path!r}"
    tree = description_tree(config, folder)
    kind = tree.get("model_type")
    _check_kind(name, tree, kind)
    try:
        about = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        _check_blocks(about)
        return about
    except Exception as error:  # noqa: BLE001 - each family checks its own fields in its own way
        raise UnsupportedModelError(
            f"{name}: its config.json does not describe a {kind} model ({first_line(error)}); copy "
            "it again"
        ) from None


def description_tree(config: BaseConfig, folder: Path) -> dict[str, Any]:
    """What `config.json` says, as it stands there."""
    try:
        tree = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(tree, dict):
            raise ValueError("it is not a JSON object")
        return tree
    except (ValueError, OSError, RecursionError) as error:
        raise UnsupportedModelError(
            f"base.path {config.path!r}: its config.json cannot be read ({str(error)[:100]}); copy "
            "it again"
        ) from None


def _check_blocks(about: PreTrainedConfig) -> None:
    blocks = getattr(about.get_text_config(), "num_hidden_layers", 0)
    if isinstance(blocks, int) and blocks > _MOST_BLOCKS:
        raise ValueError(f"it has {blocks} blocks, at most {_MOST_BLOCKS} can be")


def _check_kind(name: str, tree: dict[str, Any], kind: object) -> None:
    if kind not in CONFIG_MAPPING:
        if "auto_map" in tree:
            raise UnsupportedModelError(
                f"{name} brings its own code (auto_map), which is never run; choose a model that "
                "transformers itself knows"
            )
        raise UnsupportedModelError(
            f"{name}: unknown architecture {kind!r}; transformers {transformers_version} does not "
            "know it: update transformers, or choose another model"
        )
    if tree.get("is_encoder_decoder"):
        raise UnsupportedModelError(
            f"{name} is an encoder-decoder model ({kind}); a decoder-only causal language model is "
            "needed"
        )
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(str(kind))
    architectures = [*(tree.get("architectures") or [])]
    heads = [one for one in architectures if not one.endswith("Model")]  # LlamaModel: no head saved
    if causal is None or (heads and causal not in heads):
        raise UnsupportedModelError(
            f"{name} is no causal language model but {', '.join(architectures) or kind}, such as "
            "an encoder or a classifier; a decoder-only causal language model is needed"
        )
    if "transformers_weights" in tree:
        raise UnsupportedModelError(
            f"{name}: its config.json names a file of weights by itself (transformers_weights); "
            "give a folder that `save_pretrained` wrote"
        )
    if "quantization_config" in tree:
        method = tree["quantization_config"].get("quant_method", "unknown")
        raise UnsupportedModelError(
            f"{name} is quantised already ({method}); give the model that it was made from, this "
            "program quantises while it loads (base.precision)"
        )
