"""The files of pyreft's form: one for each edited layer, read without running what is in them.

A file is a `torch.save` of a plain dictionary, read with `weights_only=True`. Which adapter the
edits become is the matter of `pyreft_form`.
"""

import pickletools
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from torch import Tensor

from csreft_core.errors import AdapterError

Edits = dict[tuple[int, int], dict[str, Tensor]]
"""(layer, group) -> `weight` [r, d], `bias` [r], `rotate_layer` [d, r], in float32."""

# Older pyvene separates the parts of a name by dots, newer by underscores; `#1` is the second edit
# of a layer, which pyreft gives to the last tokens.
_FILE_NAME = re.compile(
    r"intkey_(?:layer[._](\d+)[._]comp[._]block_output"
    r"|comp[._]\S*layers\[(\d+)\][._]output)[._]unit[._]pos[._]nunit[._]1#([01])\.bin"
)
# pyreft's classes with other keys: their parts in our three names.
_OTHER_KEYS = {
    "weight": "learned_source.weight",
    "bias": "learned_source.bias",
    "rotate_layer": "proj_layer.weight",
}
# What the pickle inside may call: it is plain tensors, or parameters, in a dictionary.
_CALLS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch \w+Storage"
)
_MOST_PICKLE_BYTES = 2**20


def file_name(layer: int, group: int) -> str:
    """The name of the file of an edit, in the words of newer pyvene."""
    return f"intkey_layer.{layer}.comp.block_output.unit.pos.nunit.1#{group}.bin"


def read_edits(folder: Path) -> Edits:
    """The edits of a folder.

    Raises:
        AdapterError: no such folder, no file of an edit, or one that is damaged.
    """
    if not folder.is_dir():
        raise AdapterError(f"{folder}: no such folder; give the folder that pyreft saved")
    edits = {}
    for path in sorted(folder.glob("intkey_*.bin")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise AdapterError(
                f"{path}: expected an edit of a block's output, such as {file_name(2, 0)}; "
                "edits of other places cannot be imported"
            )
        layer = int(match[1] or match[2])
        edits[layer, int(match[3])] = _read_edit(path)
    if not edits:
        raise AdapterError(
            f"{folder}: has no file such as {file_name(2, 0)}; give the folder that pyreft saved"
        )
    return edits


def _read_edit(path: Path) -> dict[str, Tensor]:
    n_bytes = path.stat().st_size
    _check_archive(path)
    try:
        content: Any = torch.load(path, weights_only=True, map_location="cpu")
    except (UnpicklingError, RuntimeError, ValueError, EOFError, OSError, KeyError):
        raise _damage_error(path) from None
    content = content if isinstance(content, dict) else {}
    if _OTHER_KEYS["rotate_layer"] in content:
        content = {ours: content.get(theirs) for ours, theirs in _OTHER_KEYS.items()}
        free = content["rotate_layer"]
        content["rotate_layer"] = free.mT if isinstance(free, Tensor) and free.ndim == 2 else None
    tensors = {key: content.get(key) for key in ("weight", "bias", "rotate_layer")}
    for key, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise AdapterError(
                f"{path}: expected the tensors weight, bias and rotate_layer, but {key} is "
                "missing; only pyreft's Loreft, Noreft and Nodireft can be imported"
            )
    if any(t is not None and t.numel() * t.element_size() > n_bytes for t in tensors.values()):
        raise _damage_error(path)  # one number that is repeated, or files unpacked to a multiple
    edit = {key: tensor.float() for key, tensor in tensors.items() if tensor is not None}
    if not all(torch.isfinite(tensor).all() for tensor in edit.values()):
        raise AdapterError(f"{path}: holds values that are not finite; train again")
    rank, d_model = edit["weight"].shape if edit["weight"].ndim == 2 else (-1, -1)
    if edit["bias"].shape != (rank,) or edit["rotate_layer"].shape != (d_model, rank):
        shapes = ", ".join(f"{key} {list(tensor.shape)}" for key, tensor in edit.items())
        raise AdapterError(
            f"{path}: expected weight [r, d], bias [r] and rotate_layer [d, r], got {shapes}; "
            "save it again with pyreft"
        )
    return edit


def _check_archive(path: Path) -> None:
    """See that the file is what `torch.save` writes of tensors: nothing packed, no other calls.

    What torch accepts as weights may still ask for memory without end.
    """
    try:
        with ZipFile(path) as archive:
            entries = archive.infolist()
            pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
            plain = all(entry.compress_type == ZIP_STORED for entry in entries)
            if not plain or len(pickles) != 1 or pickles[0].file_size > _MOST_PICKLE_BYTES:
                raise _damage_error(path)
            operations = [*pickletools.genops(archive.read(pickles[0]))]
    except (BadZipFile, ValueError, OSError, EOFError, KeyError, RuntimeError):
        raise _damage_error(path) from None
    calls = {str(argument) for operation, argument, _ in operations if operation.name == "GLOBAL"}
    others = {operation.name for operation, _, _ in operations} & {"STACK_GLOBAL", "INST"}
    if others or any(_CALLS.fullmatch(name) is None for name in calls):
        raise _damage_error(path)


def _damage_error(path: Path) -> AdapterError:
    return AdapterError(
        f"{path}: is damaged, or holds more than tensors; save it again with pyreft"
    )
