"""The edits of an adapter as float64 arrays: their subspaces and maps, now and over training."""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError

from csreft_core.analysis.geometry.metrics import orthonormal_basis
from csreft_core.analysis.subject import Subject
from csreft_core.errors import ConfigError, RunError
from csreft_core.reft.adapter import CSReFT
from csreft_core.reft.subspaces import orthonormal_rows
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
    R = basis_of(adapter, edited_layer(adapter, layer, whose), group)
    return list(adapter.names), R, [orthonormal_basis(rows) for rows in R]


@torch.no_grad()
def basis_of(adapter: CSReFT, layer: int, group: int) -> Float[np.ndarray, "k rank d_model"]:
    """R of each subspace of an edited layer, as the edit uses it."""
    return adapter.at(layer).basis()[group].double().cpu().numpy()


@torch.no_grad()
def orthonormal_rows_of(
    adapter: CSReFT, layer: int, group: int, i: int
) -> Float[np.ndarray, "rank d_model"]:
    """The rows of $R_i$, each made orthogonal to those before it."""
    return orthonormal_rows(adapter.at(layer).basis()[group, i].double()).cpu().numpy()


@torch.no_grad()
def edit_coordinates(
    adapter: CSReFT, layer: int, group: int, h: Float[np.ndarray, "site d_model"]
) -> Float[np.ndarray, "k site rank"]:
    r"""Coordinates $c_i$ of the edits with open gates, $\delta_i(h) = R_i^\top c_i$.

    For LoReFT $c_i = W_i h + b_i - R_i h$; the other forms in `subspaces.Subspaces`.
    """
    subspaces = adapter.at(layer)
    to_coordinates, b, _ = subspaces.edit_maps()[group]
    c = np.broadcast_to(b.double().cpu().numpy(), (len(h), len(b)))
    if to_coordinates is not None:
        c = c + h @ to_coordinates.double().cpu().numpy().T
    return c.reshape(len(h), subspaces.n_subspaces, subspaces.rank).transpose(1, 0, 2)


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
