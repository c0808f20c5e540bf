"""How two subspaces lie to each other, and what random ones of the same shape would give.

Numpy in float64 only; no models, no files. Randomness from an explicit generator. A subspace is
the span of the rows of a matrix; `Q` stands for rows that are orthonormal.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import orth, subspace_angles

from csreft_core.analysis.labels import RANDOM_HIGH, RANDOM_LOW, RANDOM_MEDIAN

QUANTILES = {RANDOM_LOW: 0.025, RANDOM_MEDIAN: 0.5, RANDOM_HIGH: 0.975}
"""The rows of the random band: `kind` and the quantile over the draws."""


def orthonormal_rows(rows: Float[np.ndarray, "rank d_model"]) -> Float[np.ndarray, "rank d_model"]:
    """The rows, each made orthogonal to those before it: `reft.subspaces` for arrays in float64.

    Another LAPACK than torch's, so the two agree to rounding, not to the bit.
    """
    Q, T = np.linalg.qr(rows.T)
    return (Q * np.where(T.diagonal() < 0, -1.0, 1.0)).T


def orthonormal_basis(R: Float[np.ndarray, "rank d_model"]) -> Float[np.ndarray, "rank_ d_model"]:
    """Orthonormal rows with the span of the rows of R; fewer where those are dependent.

    Axis-aligned rows stay exactly axis-aligned.
    """
    R = np.asarray(R, dtype=np.float64)
    Q = orthonormal_rows(R)
    # What of each row the earlier ones do not hold.
    new = np.abs((Q * R).sum(1))
    dependent = new.min() <= R.shape[1] * np.finfo(np.float64).eps * max(new.max(), 1e-300)
    return orth(R.T).T if dependent else Q


def principal_angles(
    Q_i: Float[np.ndarray, "rank_i d_model"], Q_j: Float[np.ndarray, "rank_j d_model"]
) -> Float[np.ndarray, " rank_min"]:
    r"""Principal angles in radians, in [0, pi/2], the smallest first (method.md, 9).

    $\cos\theta_m = \sigma_m(Q_i Q_j^\top)$; small angles through the sine, so that equal
    subspaces give 0 to 1e-8.
    """
    return np.sort(subspace_angles(Q_i.T, Q_j.T))


def overlap(
    Q_i: Float[np.ndarray, "rank_i d_model"], Q_j: Float[np.ndarray, "rank_j d_model"]
) -> float:
    r"""Normalised overlap $\|Q_i Q_j^\top\|_F^2 / \min(r_i, r_j)$ in [0, 1] (method.md, 9).

    0 for orthogonal subspaces, 1 where one holds the other, $\max(r_i, r_j)/d$ on the mean over
    random ones.
    """
    shared = float(np.square(Q_i @ Q_j.T).sum() / min(len(Q_i), len(Q_j)))
    return min(shared, 1.0)


@dataclass(frozen=True)
class PairMeasures:
    """What the table of pairs says of two subspaces.

    Attributes:
        smallest_angle: Radians, in [0, pi/2].
        mean_angle: Radians, of the min(r_i, r_j) angles.
        largest_angle: Radians.
        overlap: See `overlap`.
        excess: overlap - max(r_i, r_j)/d: 0 is chance, above it more is shared.
        grassmann: Distance $\\sqrt{\\sum_m \\theta_m^2}$, radians.
        chordal: Distance $\\sqrt{\\sum_m \\sin^2\\theta_m}$, no unit, in [0, sqrt(r)].
    """

    smallest_angle: float
    mean_angle: float
    largest_angle: float
    overlap: float
    excess: float
    grassmann: float
    chordal: float


MEASURES = tuple(PairMeasures.__dataclass_fields__)


def pair_measures(
    Q_i: Float[np.ndarray, "rank_i d_model"], Q_j: Float[np.ndarray, "rank_j d_model"]
) -> PairMeasures:
    """All measures of a pair; symmetric in the two."""
    angles = principal_angles(Q_i, Q_j)
    shared = overlap(Q_i, Q_j)
    return PairMeasures(
        smallest_angle=float(angles[0]),
        mean_angle=float(angles.mean()),
        largest_angle=float(angles[-1]),
        overlap=shared,
        excess=shared - max(len(Q_i), len(Q_j)) / Q_i.shape[1],
        grassmann=float(np.linalg.norm(angles)),
        chordal=float(np.linalg.norm(np.sin(angles))),
    )


def random_subspaces(
    rng: np.random.Generator, ranks: Sequence[int], d_model: int
) -> list[Float[np.ndarray, "rank d_model"]]:
    """Independent subspaces of these dimensions, each uniform over all of its dimension."""
    return [np.linalg.qr(rng.standard_normal((d_model, rank)))[0].T for rank in ranks]


def random_angles(
    rng: np.random.Generator, draws: int, ranks: Sequence[int], d_model: int
) -> list[Float[np.ndarray, " rank_min"]]:
    """Principal angles (radians, rising) of every pair i < j of each draw of random subspaces."""
    angles = []
    for _ in range(draws):
        Q = random_subspaces(rng, ranks, d_model)
        for j in range(len(Q)):
            for i in range(j):
                cosines = np.linalg.svd(Q[i] @ Q[j].T, compute_uv=False)
                angles.append(np.arccos(np.clip(cosines, 0.0, 1.0)))
    return angles


def measures_from_angles(
    angles: Float[np.ndarray, " rank_min"], ranks: tuple[int, int], d_model: int
) -> PairMeasures:
    """The measures of a pair of which only the angles are kept."""
    shared = float(np.square(np.cos(angles)).mean())
    return PairMeasures(
        smallest_angle=float(angles[0]),
        mean_angle=float(angles.mean()),
        largest_angle=float(angles[-1]),
        overlap=shared,
        excess=shared - max(ranks) / d_model,
        grassmann=float(np.linalg.norm(angles)),
        chordal=float(np.linalg.norm(np.sin(angles))),
    )


def band(values: Iterable[Sequence[float] | np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """The kind of each quantile in `QUANTILES` with its value in each column."""
    array = np.asarray(list(values), dtype=float)
    return [(kind, np.quantile(array, q, axis=0)) for kind, q in QUANTILES.items()]


def at_least_two(ranks: Sequence[int]) -> Sequence[int]:
    """A single subspace has no pair; two random ones of its shape still say what chance is."""
    return ranks if len(ranks) > 1 else [*ranks, *ranks]
