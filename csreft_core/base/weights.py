"""The safetensors files of a base: which they are and what they claim, before any is loaded.

Nothing but safetensors in the base's own folder is read; what an index names beside it is refused.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig

from csreft_core.errors import UnsupportedModelError

SINGLE, INDEX, LORA = "model.safetensors", "model.safetensors.index.json", "adapter_config.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_MOST_INDEX_BYTES = 64 * 2**20
_SAVE_AGAIN = "save it again with `save_pretrained`, which writes safetensors"


@dataclass(frozen=True)
class WeightFiles:
    """The files with the weights of a base.

    Attributes:
        paths: In the folder of the base.
        n_tensors: In all of them.
        n_numbers: Of all tensors.
    """

    paths: tuple[Path, ...]
    n_tensors: int
    n_numbers: int


def find_weights(name: str, folder: Path) -> WeightFiles:
    """The files with a base's weights, with their headers checked.

    Args:
        name: Of the base, for messages.
        folder: With its files.

    Raises:
        UnsupportedModelError: no weights in safetensors, an index that names other files, a LoRA
            beside them, or a damaged header.
    """
    names = _names(name, folder)
    if (folder / LORA).is_file():
        raise UnsupportedModelError(
            f"{name}: whole weights lie beside a LoRA ({LORA}); they may be without it or have it "
            f"merged already. To use them as they are, take {LORA} out of the folder; to add the "
            "LoRA, load both with peft, call merge_and_unload() and save that"
        )
    paths = tuple(folder / file for file in names)
    counts = [_count(name, path) for path in paths]
    return WeightFiles(paths, sum(n for n, _ in counts), sum(n for _, n in counts))


def _names(name: str, folder: Path) -> list[str]:
    """transformers takes the single file where there is one."""
    if (folder / SINGLE).is_file():
        return [SINGLE]
    if (folder / INDEX).is_file():
        return _index_files(name, folder)
    if (folder / LORA).is_file():
        raise UnsupportedModelError(
            f"{name} is a LoRA alone, without the weights it is for; load both with peft, call "
            "merge_and_unload() and save that"
        )
    if any(path.suffix in _PICKLED for path in folder.iterdir()):
        raise UnsupportedModelError(
            f"{name} has only pickled weights, which are never read because they can run code; "
            f"{_SAVE_AGAIN}"
        )
    raise UnsupportedModelError(
        f"{name} has no weights in safetensors ({SINGLE}); choose a model that has"
    )


def _index_files(name: str, folder: Path) -> list[str]:
    names = _weight_map(name, folder / INDEX).values()
    files = {file: None for file in names if isinstance(file, str)}
    for file in (*files, *(file for file in names if not isinstance(file, str))):
        plain = isinstance(file, str) and Path(file).name == file and "\\" not in file
        if not plain or not file.endswith(".safetensors"):
            raise UnsupportedModelError(
                f"{name}: {INDEX} names {str(file)[:60]!r}; only safetensors files in its own "
                f"folder are read, never pickles, which can run code; {_SAVE_AGAIN}"
            )
        if not (folder / file).is_file():
            raise UnsupportedModelError(
                f"{name}: {INDEX} names {file[:60]!r}, which is not there; copy or fetch the whole "
                "folder again"
            )
    return sorted(files)


def _weight_map(name: str, path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_INDEX_BYTES:
            raise ValueError(f"it is larger than {_MOST_INDEX_BYTES // 2**20} MB")
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if not isinstance(weight_map, dict) or not weight_map:
            raise ValueError("it names no weights")
        return weight_map
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise UnsupportedModelError(
            f"{name}: {INDEX} cannot be read ({str(error)[:100]}); copy or fetch the folder again"
        ) from None


def _count(name: str, path: Path) -> tuple[int, int]:
    """Tensors and numbers that a file holds; safetensors holds its header against its size."""
    try:
        with safe_open(path, framework="pt") as file:
            shapes = [file.get_slice(tensor).get_shape() for tensor in file.keys()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UnsupportedModelError(
            f"{name}: its weights cannot be loaded ({path.name}: {str(error)[:200]}); copy or "
            "fetch the whole folder again"
        ) from None
    return len(shapes), sum(map(math.prod, shapes))


def check_claims(name: str, about: PreTrainedConfig, files: WeightFiles) -> None:
    """See that a description asks for no more than its files hold.

    Raises:
        UnsupportedModelError: more blocks than tensors, or a larger embedding than all numbers.
    """
    text = about.get_text_config()
    blocks, rows = getattr(text, "num_hidden_layers", 0), getattr(text, "vocab_size", 0)
    table = rows * getattr(text, "hidden_size", 0)
    if blocks > files.n_tensors or table > files.n_numbers:
        raise UnsupportedModelError(
            f"{name}: its config.json describes {blocks} blocks and an embedding of {table} "
            f"numbers, but its weights are {files.n_tensors} tensors of {files.n_numbers} numbers "
            "in all; copy the whole folder again"
        )
