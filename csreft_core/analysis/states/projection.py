"""States of prompts without and with the adapter, and the axes that pictures of them are drawn on.

Numerics of the States view: no tables, no I/O, no randomness.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.decomposition import PCA
from torch import Tensor

from csreft_core.analysis.geometry.bases import orthonormal_rows_of
from csreft_core.analysis.geometry.metrics import orthonormal_rows
from csreft_core.analysis.latest import Latest
from csreft_core.analysis.states.choices import BASES
from csreft_core.analysis.subject import Subject
from csreft_core.errors import ConfigError
from csreft_core.inference.answers import Trace
from csreft_core.inference.scoring import check_labels
from csreft_core.reft.adapter import CSReFT
from csreft_core.reft.positions import token_index
from csreft_core.skills.skill_set import Row

Matrix = Float[np.ndarray, "point d_model"]
AxisRows = Float[np.ndarray, "axis d_model"]
GivenRows = Float[np.ndarray, "given d_model"]

_BATCH = 32
# Rounding differs between batch shapes; a spread below it is no spread.
_NO_SPREAD = 1e-6


def traces(
    subject: Subject, rows: Sequence[Row], gates: str, layers: Sequence[int]
) -> Iterator[tuple[slice, Trace, Trace]]:
    """Each batch of rows without and with the adapter.

    Raises:
        ConfigError: `oracle` for a row whose skill no subspace is named after, or another
            setting that does not fit.
    """
    engine, template = subject.engine, subject.template
    if gates == "oracle":
        check_labels(rows, subject.adapter.names)
    for start in range(0, len(rows), _BATCH):
        part = slice(start, min(start + _BATCH, len(rows)))
        plain, edited = engine.traces(
            subject.adapter,
            subject.prompts_of(rows[part]),
            gates,
            layers=layers,
            template=template,
            skills=[row.skills for row in rows[part]],
        )
        yield part, plain, edited


def at_token(
    values: Float[Tensor, "prompt seq d"], is_token: Bool[Tensor, "prompt seq"], position: str
) -> tuple[Float[Tensor, "prompt d"], Bool[Tensor, " prompt"]]:
    """The value at one token of each prompt, and which prompts have that token.

    Args:
        values: Of prompts padded on the left.
        is_token: False for padding.
        position: `last`, `first`, `mean` (over all tokens of the prompt), or a place from the
            end: `-1` is the last prompt token, `-2` the one before it.

    Raises:
        ConfigError: another position.
    """
    length, width = is_token.sum(1), is_token.shape[1]
    if position == "mean":
        weight = is_token.to(values.dtype).unsqueeze(-1)
        return (values * weight).sum(1) / weight.sum(1), length > 0
    place = {"last": -1, "first": 0}.get(position)
    if place is None:
        try:
            place = int(position)
        except ValueError:
            place = 1
        if place >= 0:
            raise ConfigError(
                f"unknown token position {position!r}; choose last, first, mean or a place from "
                "the end such as -2"
            )
    columns = width - length if place == 0 else torch.full_like(length, width + place)
    there = length >= max(1, -place)
    return values[torch.arange(len(values)), columns.clamp(0, width - 1)], there


@dataclass(frozen=True)
class Points:
    """States at one layer and token, in float64.

    Attributes:
        rows: The prompts that have this token.
        base: Without any adapter.
        before: In the run with the adapter, before the edit of this layer.
        after: In that run, after the edit of this layer.
        gates: Of this token where the router is per token.
        group: Which group of an untied edit moves this token; -1 where it is not edited.
    """

    rows: tuple[Row, ...]
    base: Matrix
    before: Matrix
    after: Matrix
    gates: Float[np.ndarray, "point k"]
    group: Int[np.ndarray, " point"]


_LATEST = Latest[Points](8)


def points_at(
    subject: Subject, rows: Sequence[Row], gates: str, layer: int, position: str
) -> Points:
    """The states of rows at one layer and token; the latest are kept, for all tables of a page.

    Raises:
        ConfigError: no such layer or token, or gates that do not fit.
    """
    check_layer(subject, layer)
    key = (tuple(rows), gates, layer, position)
    return _LATEST.of(subject, key, lambda: _read_points(subject, rows, gates, layer, position))


def _read_points(
    subject: Subject, rows: Sequence[Row], gates: str, layer: int, position: str
) -> Points:
    kept: list[Row] = []
    names = ("base", "before", "after", "gates", "group")
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for part, plain, edited in traces(subject, rows, gates, (layer,)):
        mask = edited.is_token
        assert edited.gates is not None
        values = {
            "base": plain.after[layer],
            "before": edited.before[layer],
            "after": edited.after[layer],
            "gates": _per_token(edited.gates, mask),
            "group": _groups(subject.adapter, mask),
        }
        there = np.zeros(0, dtype=bool)
        for name, value in values.items():
            picked, has_token = at_token(value, mask, position)
            there = has_token.numpy()
            parts[name].append(picked.numpy()[there].astype(np.float64))
        kept += [row for row, has in zip(rows[part], there, strict=True) if has]
    if not kept:
        raise ConfigError(
            f"no prompt has a token at {position!r}; choose one nearer to the end, such as last"
        )
    *states, group = (np.concatenate(part) for part in parts.values())
    return Points(tuple(kept), *states, group=np.rint(group[:, 0]).astype(int))


def _groups(adapter: CSReFT, is_token: Bool[Tensor, "prompt seq"]) -> Float[Tensor, "prompt seq 1"]:
    groups = adapter.positions.groups(token_index(is_token), is_token.sum(1))
    return groups.float().unsqueeze(-1)


def _per_token(
    gates: Float[Tensor, "prompt k"] | Float[Tensor, "prompt seq k"],
    is_token: Bool[Tensor, "prompt seq"],
) -> Float[Tensor, "prompt seq k"]:
    return gates if gates.ndim == 3 else gates.unsqueeze(1).expand(-1, is_token.shape[1], -1)


def check_layer(subject: Subject, layer: int) -> None:
    """Refuse a layer that the base does not have."""
    n = subject.engine.base.n_layers
    if not 0 <= layer < n:
        raise ConfigError(f"layer is {layer}, but the base has layers 0 to {n - 1}")


def group_at(adapter: CSReFT, position: str) -> int:
    """Which group of an untied edit a token belongs to: the last ones unless it is the first."""
    return 0 if position == "first" else adapter.positions.n_groups - 1


def subspace_rows(adapter: CSReFT, layer: int, name: str, position: str) -> AxisRows:
    """Orthonormal axes of one subspace of a layer.

    Raises:
        ConfigError: no such subspace, or a layer without edit.
    """
    i = index_of(adapter, name)
    check_edited(adapter, layer)
    return orthonormal_rows_of(adapter, layer, group_at(adapter, position), i)


def check_edited(adapter: CSReFT, layer: int) -> None:
    """Refuse a layer without subspaces."""
    if layer not in adapter.layers:
        raise ConfigError(
            f"layer {layer} has no subspaces; this adapter edits layer "
            f"{', '.join(map(str, adapter.layers))}"
        )


def index_of(adapter: CSReFT, name: str) -> int:
    """The place of a subspace.

    Raises:
        ConfigError: no such name.
    """
    if name not in adapter.names:
        raise ConfigError(f"no subspace {name!r}; choose one of {', '.join(adapter.names)}")
    return adapter.names.index(name)


def fit_axes(
    base: Matrix, edited: Matrix, basis: str, n_axes: int, first: GivenRows | None = None
) -> AxisRows:
    r"""Orthonormal axes to draw states on, by `sklearn.decomposition.PCA`; own choice of bases.

    `base`: principal components of the base states. `joint`: of base and edited states together.
    `differences`: of $h' - h$ without centring, so that a shift which all prompts share counts;
    no other axes show more of the edit. A subspace: its own axes in their order, completed by
    components of the base states where it has fewer than asked for. Where nothing differs, the
    axes of the base states; where the base states do not differ either, axes of the model.
    The sign is such that the largest entry of each axis is positive.

    Args:
        base: h, at least `n_axes` + 1 points.
        edited: h'.
        basis: One of `BASES`; not read where `first` is given.
        n_axes: 2 or 3.
        first: Axes that come first, orthonormal.

    Raises:
        ConfigError: an unknown basis, or too few prompts.
    """
    if len(base) <= n_axes or base.shape[1] < n_axes:
        raise ConfigError(f"{n_axes} axes need at least {n_axes + 1} prompts, got {len(base)}")
    if first is not None:
        first = first[:n_axes]
        # In the complement of the axes that are there already.
        rest = _components(base - (base @ first.T) @ first, n_axes - len(first))
        return orthonormal_rows(np.concatenate([first, rest]))
    difference = edited - base
    if basis == "joint":
        return _components(np.concatenate([base, edited]), n_axes)
    if basis not in BASES:
        raise ConfigError(
            f"unknown basis {basis!r}; choose one of {', '.join(BASES)} or subspace:<name>"
        )
    if basis == "base" or not _moves(base, edited):
        return _components(base, n_axes)
    # Their mean is zero, so PCA does not centre.
    return _components(np.concatenate([difference, -difference]), n_axes)


def _moves(base: Matrix, edited: Matrix) -> bool:
    return bool(np.square(edited - base).sum() > _NO_SPREAD**2 * np.square(base).sum())


def _components(points: Matrix, n_axes: int) -> AxisRows:
    centred = points - points.mean(0)
    if n_axes == 0 or np.square(centred).sum() <= _NO_SPREAD**2 * np.square(points).sum():
        return np.eye(n_axes, points.shape[1])
    pca = PCA(n_components=n_axes, svd_solver="full").fit(points)
    components = np.asarray(pca.components_)
    largest = np.abs(components).argmax(1)
    return components * np.sign(components[np.arange(n_axes), largest])[:, None]


def variance_shares(points: Matrix, axes: AxisRows) -> Float[np.ndarray, " axis"]:
    r"""Share of the points' variance along each orthonormal axis, in [0, 1]; NaN without spread.

    $\sum_n ((x_n - \bar x) \cdot p_a)^2 / \sum_n \|x_n - \bar x\|^2$
    """
    centred = points - points.mean(0)
    if np.square(centred).sum() <= _NO_SPREAD**2 * np.square(points).sum():
        return np.full(len(axes), np.nan)
    return energy_shares(centred, axes)


def energy_shares(differences: Matrix, axes: AxisRows) -> Float[np.ndarray, " axis"]:
    r"""Share of the edit along each orthonormal axis, in [0, 1]; NaN where nothing moves (own).

    $\sum_n ((h'_n - h_n) \cdot p_a)^2 / \sum_n \|h'_n - h_n\|^2$. Over the axes of a picture they
    add up to the share of the edit that it shows; random axes show $1/d$ each on average.
    """
    total = np.square(differences).sum()
    if total == 0:
        return np.full(len(axes), np.nan)
    return np.square(differences @ axes.T).sum(0) / total
