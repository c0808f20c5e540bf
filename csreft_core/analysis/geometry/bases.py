"""The subspaces of an adapter as float64 arrays: now, in every layer, and over training."""

from collections.abc import Iterable

import numpy as np
import torch
from safetensors import SafetensorError

from csreft_core.analysis.geometry.metrics import orthonormal_basis
from csreft_core.analysis.subject import Subject
from csreft_core.errors import ConfigError, RunError
from csreft_core.reft.adapter import CSReFT
from csreft_core.training.snapshots import read_snapshot


def edited_layer(adapter: CSReFT, layer: int | None, whose: str = "this run") -> int:
    """The layer, if it is edited; the first edited one for None.

    Raises:
        ConfigError: the layer is not edited.
    """
    if layer is None:
        return adapter.layers[0]
    if layer not in adapter.layers:
        edited = ", ".join(map(str, adapter.layers))
        raise ConfigError(f"layer {layer} is not edited in {whose}; choose one of {edited}")
    return layer


def subspaces_of(
    adapter: CSReFT, layer: int | None, group: int, whose: str = "this run"
) -> tuple[list[str], np.ndarray, list[np.ndarray]]:
    """Names, R [k, rank, d_model] as the edit uses it, and an orthonormal basis of each.

    Raises:
        ConfigError: the layer is not edited, or there is no such group.
    """
    n_groups = adapter.positions.n_groups
    if not 0 <= group < n_groups:
        raise ConfigError(f"group: expected 0 to {n_groups - 1} in {whose}, got {group}")
    with torch.no_grad():
        R = adapter.at(edited_layer(adapter, layer, whose)).basis()[group].double().cpu().numpy()
    return list(adapter.names), R, [orthonormal_basis(rows) for rows in R]


def readers_of(adapter: CSReFT, group: int) -> dict[int, list[np.ndarray]]:
    """Orthonormal bases of each edited layer."""
    return {layer: subspaces_of(adapter, layer, group)[2] for layer in adapter.layers}


def bases_over_training(
    subject: Subject, layer: int, group: int
) -> Iterable[tuple[int, np.ndarray]]:
    """Step and R [k, rank, d_model] of each snapshot of the run; float16 numbers.

    Raises:
        RunError: a snapshot is damaged.
    """
    for path in [] if subject.run is None else subject.run.snapshots():
        try:
            R = read_snapshot(path)[f"R.{layer}"][group]
        except (SafetensorError, OSError, KeyError, IndexError):
            raise RunError(
                f"{path}: is damaged or of another adapter; delete this snapshot"
            ) from None
        yield int(path.stem.removeprefix("step-")), R.double().numpy()
