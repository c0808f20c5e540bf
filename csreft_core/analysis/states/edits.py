"""Edits as arrays: their size at every layer and token, in coordinates, and over the snapshots."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from torch import Tensor

from csreft_core.analysis.geometry.bases import basis_of, edit_coordinates
from csreft_core.analysis.states import projection as p
from csreft_core.analysis.subject import Subject
from csreft_core.errors import RunError
from csreft_core.inference.scoring import scored_rows
from csreft_core.reft.adapter import CSReFT
from csreft_core.skills.skill_set import Row
from csreft_core.training.snapshots import read_snapshot


@dataclass(frozen=True)
class Sizes:
    """Relative edit sizes; axis `place` counts tokens from the end, the last one first.

    Attributes:
        mean: Over the prompts that have the token, of |h' - h| / |h|; NaN where none has it.
        highest: Of them.
        between: Root mean square distance of two prompts' base states, relative to the root mean
            square of |h|; NaN for fewer than two prompts.
        n: Prompts that have the token.
    """

    mean: Float[np.ndarray, "layer place"]
    highest: Float[np.ndarray, "layer place"]
    between: Float[np.ndarray, "layer place"]
    n: Float[np.ndarray, " place"]


def edit_sizes(subject: Subject, rows: Sequence[Row], gates: str, places: int) -> Sizes:
    """How far the run with the adapter is from the base, at every layer and token.

    Args:
        subject: The opened run.
        rows: Prompts.
        gates: Gate setting.
        places: At most so many tokens from the end.
    """
    layers = range(subject.engine.base.n_layers)
    shape = (len(layers), places)
    d_model = subject.engine.base.d_model
    total, highest = np.zeros(shape), np.zeros(shape)
    state, square, n = np.zeros((*shape, d_model)), np.zeros(shape), np.zeros(places)
    longest = 0
    for _, plain, edited in p.traces(subject, rows, gates, tuple(layers)):
        mask = edited.is_token[:, -places:].flip(1).numpy()
        width = mask.shape[1]
        longest = max(longest, width)
        n[:width] += mask.sum(0)
        for layer in layers:
            h = _from_the_end(plain.after[layer], places)
            size = np.linalg.norm(_from_the_end(edited.after[layer], places) - h, axis=2)
            norm = np.linalg.norm(h, axis=2)
            relative = np.where(mask, size / np.where(mask, norm, 1), 0)
            total[layer, :width] += relative.sum(0)
            highest[layer, :width] = np.maximum(highest[layer, :width], relative.max(0))
            state[layer, :width] += np.where(mask[..., None], h, 0).sum(0)
            square[layer, :width] += np.where(mask, norm**2, 0).sum(0)
    few = np.maximum(n, 1)
    spread = 1 - np.square(state / few[:, None]).sum(2) / np.maximum(square / few, 1e-30)
    pairs = np.where(n > 1, n / np.maximum(n - 1, 1), np.nan)
    # E|a - b|^2 over pairs of different prompts is 2 n / (n - 1) (E|h|^2 - |E h|^2).
    between = np.sqrt(2 * pairs * np.maximum(spread, 0))
    keep = slice(0, longest)
    return Sizes((total / few)[:, keep], highest[:, keep], between[:, keep], n[keep])


def _from_the_end(
    states: Float[Tensor, "prompt seq d_model"], places: int
) -> Float[np.ndarray, "prompt place d_model"]:
    return states[:, -places:].flip(1).numpy().astype(np.float64)


@dataclass(frozen=True)
class Coordinates:
    r"""One subspace's coordinates of states at an edited layer, in units of h.

    $R_i h$, $R_i h'$, and the target: what $R_i h'$ becomes at gate 1 if the rows of R are
    orthonormal and no other subspace shares them. It is $W_i h + b_i$ for `loreft` and `noreft`,
    $b_i$ for `consreft`, $R_i h + W_i h + b_i$ for `direft` and $R_i h + b_i$ for `lobireft`
    (ReFT, equations 2 and 3, table 17).
    """

    before: Float[np.ndarray, "point rank"]
    after: Float[np.ndarray, "point rank"]
    target: Float[np.ndarray, "point rank"]


TARGETS = {
    "loreft": "W h + b",
    "noreft": "W h + b",
    "consreft": "b",
    "direft": "R h + W h + b",
    "lobireft": "R h + b",
}


def subspace_coordinates(adapter: CSReFT, points: p.Points, layer: int, name: str) -> Coordinates:
    """The coordinates of states before and after the edit, and their target."""
    i, rank = p.index_of(adapter, name), adapter.at(layer).rank
    before, after, move = (np.zeros((len(points.rows), rank)) for _ in range(3))
    for group, rows in _by_group(adapter, points):
        h, R = points.before[rows], basis_of(adapter, layer, group)[i]
        before[rows], after[rows] = h @ R.T, points.after[rows] @ R.T
        move[rows] = edit_coordinates(adapter, layer, group, h)[i]
    return Coordinates(before, after, before + move)


def edit_energies(adapter: CSReFT, points: p.Points, layer: int) -> Float[np.ndarray, "point k"]:
    r"""$\|\delta_i(h)\|^2$ of every subspace at gate 1, in units of h squared; 0 if not edited."""
    energies = np.zeros((len(points.rows), adapter.n_subspaces))
    for group, rows in _by_group(adapter, points):
        c = edit_coordinates(adapter, layer, group, points.before[rows])
        delta = np.einsum("kpr,krd->pkd", c, basis_of(adapter, layer, group))
        energies[rows] = np.square(delta).sum(2)
    energies[points.group < 0] = 0
    return energies


def _by_group(
    adapter: CSReFT, points: p.Points
) -> Iterator[tuple[int, Bool[np.ndarray, " point"]]]:
    """Which points each group of the edit moves; one that is not edited counts with the first."""
    for group in range(adapter.positions.n_groups):
        yield group, np.maximum(points.group, 0) == group


def _numbers(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.float64)


@dataclass(frozen=True)
class Snapshot:
    """One snapshot of the training at one layer; states are of the last prompt token (float16)."""

    step: int
    rows: tuple[Row, ...]
    before: p.Matrix
    after: p.Matrix
    gates: Float[np.ndarray, "point k"]
    R: Float[np.ndarray, "group k rank d_model"]


def snapshots_of(subject: Subject, layer: int, most: int) -> list[Snapshot]:
    """The run's snapshots at a layer, at most so many, taken evenly; first and last stay.

    Raises:
        RunError: the run has no snapshots, or they are damaged or of other data.
    """
    files = [] if subject.run is None else subject.run.snapshots()
    if not files:
        raise RunError(
            "this run has no snapshots of its training, so its states over the steps are not "
            "known; train it again with this program, or open a shipped run"
        )
    take = np.unique(np.linspace(0, len(files) - 1, min(len(files), most)).astype(int))
    scored = _validation_rows(subject)
    snapshots = []
    for path in (files[i] for i in take):
        arrays = _arrays(path, layer, len(scored))
        snapshots.append(
            Snapshot(
                int(path.stem.removeprefix("step-")),
                tuple(scored[i] for i in arrays["rows"].tolist()),
                _numbers(arrays[f"before.{layer}"]),
                _numbers(arrays[f"after.{layer}"]),
                _numbers(arrays["gates"]),
                _numbers(arrays[f"R.{layer}"]),
            )
        )
    return snapshots


def _arrays(path: Path, layer: int, n_rows: int) -> dict[str, Tensor]:
    try:
        arrays = read_snapshot(path)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: is damaged ({error}); copy it again or train again") from None
    expected = {"rows", "gates", *(f"{name}.{layer}" for name in ("before", "after", "R"))}
    if not expected <= set(arrays) or int(arrays["rows"].max()) >= n_rows:
        raise RunError(
            f"{path}: does not fit the run's layers or its skills.jsonl; one of them was changed "
            "after training, train again"
        )
    return arrays


def _validation_rows(subject: Subject) -> list[Row]:
    """The validation rows that the trainer scores, in its order."""
    splits = subject.skill_set.splits
    rows = subject.skill_set.split("validation" if "validation" in splits else "train")
    return [rows[i] for i in scored_rows(len(rows))]
