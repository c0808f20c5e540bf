r"""95 % intervals of what was measured on held-out prompts, over what was drawn.

A prompt is one item (a noun) in one wording, and both come again in other prompts, so prompts are
not independent. Where rows name their item, an interval is over items and wordings, crossed; where
they do not, it is over prompts. The skills were chosen, not drawn: each keeps its weight. No
randomness, no files.

The variance is $V = V_{items} + V_{wordings} - V_{prompts}$, each a jackknife that leaves out one
level at a time (two-way clustering: Cameron, Gelbach and Miller 2011), and never less than that of
one factor alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from csreft_core.skills.skill_set import Row, skill_name

LEVEL = 0.95
MOST_GROUPS = 1000
"""More levels than that are left out in groups."""
PROMPTS, ITEMS, WORDINGS = "prompts", "items", "wordings"

Statistic = Callable[[Float[np.ndarray, "*lead prompt"]], np.ndarray]
"""From a weight for each prompt to numbers; several numbers stand in the first axis."""


@dataclass(frozen=True)
class Factor:
    """One thing that was drawn.

    Attributes:
        name: `items`, `wordings` or `prompts`.
        level: Which of them each prompt has, from 0.
    """

    name: str
    level: Int[np.ndarray, " prompt"]

    @property
    def n_levels(self) -> int:
        """How many there are."""
        return int(self.level.max()) + 1


@dataclass(frozen=True)
class Units:
    """What the intervals of some prompts are over.

    Attributes:
        skill: Of each prompt, as a code from 0; each keeps its weight.
        factors: What was drawn: items and wordings, or prompts alone.
        cells: Prompts that are alike in every factor.
    """

    skill: Int[np.ndarray, " prompt"]
    factors: tuple[Factor, ...]
    cells: Factor

    @property
    def over(self) -> str:
        """In words, such as `items and wordings`."""
        return " and ".join(factor.name for factor in self.factors)

    @property
    def fewest(self) -> int:
        """Levels of the factor that has the fewest: so many prompts are independent for sure."""
        return min(factor.n_levels for factor in self.factors)

    @property
    def unseen(self) -> float:
        """Upper end for the share of a kind of prompt that never came, 0 to 1 (Wilson)."""
        return float(_wilson(np.zeros(1), np.array([float(self.fewest)]), _Z)[1][0])


_Z = float(stats.norm.ppf(0.5 + LEVEL / 2))


def units_of(rows: Sequence[Row]) -> Units:
    """What the intervals of these rows are over.

    A row without an item counts as an item and a wording of its own. A factor that has one level
    in every skill was not drawn and is left out.

    Args:
        rows: At least one.
    """
    skills = _codes([skill_name(row) for row in rows])
    own = [("", str(i), row.prompt) if not row.item else row.item for i, row in enumerate(rows)]
    asked = [(skill_name(row), row.wording or row.prompt) for row in rows]
    cells = Factor(PROMPTS, _codes([(skill_name(row), row.prompt) for row in rows]))
    if not any(row.item for row in rows):
        return Units(skills, (cells,), cells)
    both = (Factor(ITEMS, _codes(own)), Factor(WORDINGS, _codes(asked)))
    drawn = tuple(factor for factor in both if _varies(factor, skills))
    return Units(skills, drawn or (cells,), cells)


def _codes(names: Sequence) -> Int[np.ndarray, " prompt"]:
    places = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([places[name] for name in names], dtype=int)


def _varies(factor: Factor, skills: Int[np.ndarray, " prompt"]) -> bool:
    return any(len(set(factor.level[skills == skill])) > 1 for skill in set(skills))


@dataclass(frozen=True)
class Spread:
    """Numbers with their standard errors.

    Attributes:
        value: The statistic on all prompts.
        error: Standard error; NaN where a skill has a single prompt.
        df: Degrees of freedom of the error (Satterthwaite).
        units: What it is over.
    """

    value: Float[np.ndarray, " number"]
    error: Float[np.ndarray, " number"]
    df: Float[np.ndarray, " number"]
    units: Units


def spread(statistic: Statistic, units: Units) -> Spread:
    """The statistic and how far it would move if other items and wordings had been drawn.

    Args:
        statistic: A smooth function of the weights.
        units: Of the prompts.
    """
    value = np.atleast_1d(np.asarray(statistic(np.ones(len(units.skill))), dtype=float))
    parts = [_jackknife(statistic, value, factor, units) for factor in units.factors]
    variances = np.stack([variance for variance, _ in parts])
    freedom = np.array([df for _, df in parts])[:, None]
    total = variances.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = total**2 / (variances**2 / freedom).sum(0)
    if len(parts) > 1:
        shared, _ = _jackknife(statistic, value, units.cells, units)
        total = np.maximum(total - shared, variances.max(0))
    if np.bincount(units.skill).min() < 2 or freedom.min() < 1:
        total = np.full_like(total, np.nan)
    return Spread(value, np.sqrt(total), np.where(total > 0, df, freedom.min()), units)


def _jackknife(
    statistic: Statistic, value: Float[np.ndarray, " number"], factor: Factor, units: Units
) -> tuple[Float[np.ndarray, " number"], int]:
    """Variance over the levels of a factor, and its degrees of freedom."""
    table = np.zeros((factor.n_levels, int(units.skill.max()) + 1), dtype=bool)
    table[factor.level, units.skill] = True
    n_in_skill = table.sum(0)
    # Levels in the fewest-levelled skill that has this one: what a mean over them divides by.
    m = np.where(table, n_in_skill, np.iinfo(int).max).min(1)
    df = factor.n_levels - (1 if (table.sum(1) > 1).any() else table.shape[1])
    group = _level_groups(factor.n_levels)
    scale = np.bincount(group, (m - 1) / m) / np.bincount(group)
    total = np.zeros_like(value)
    for first in range(0, len(scale), 128):
        part = np.arange(first, min(first + 128, len(scale)))
        weights, possible = _left_out(group[factor.level], part, units.skill)
        moved = np.atleast_2d(np.asarray(statistic(weights), dtype=float)) - value[:, None]
        total += (np.nan_to_num(moved) ** 2 * (scale[part] * possible)).sum(-1)
    return total, df


def _level_groups(n_levels: int) -> Int[np.ndarray, " level"]:
    """The group of each level: its own, or one of `MOST_GROUPS` that are mixed by a fixed seed."""
    if n_levels <= MOST_GROUPS:
        return np.arange(n_levels)
    return np.random.default_rng(0).permutation(n_levels) % MOST_GROUPS


def _left_out(
    group: Int[np.ndarray, " prompt"],
    left: Int[np.ndarray, " draw"],
    skill: Int[np.ndarray, " prompt"],
) -> tuple[Float[np.ndarray, "draw prompt"], Float[np.ndarray, " draw"]]:
    """Weights without each group, each skill at its full weight; 0 where a skill would be empty."""
    weights = (group[None] != left[:, None]).astype(float)
    possible = np.ones(len(left))
    for code in range(skill.max() + 1):
        own = skill == code
        kept = weights[:, own].sum(1)
        possible *= kept > 0
        weights[:, own] *= (own.sum() / np.maximum(kept, 1))[:, None]
    weights[possible == 0] = 1.0
    return weights, possible


def mean_interval(
    estimates: Spread,
    lowest: float = -np.inf,
    highest: float | Float[np.ndarray, " number"] = np.inf,
) -> tuple[Float[np.ndarray, " number"], Float[np.ndarray, " number"]]:
    """Student's t interval, cut to the range that the number can have."""
    half = stats.t.ppf(0.5 + LEVEL / 2, np.maximum(estimates.df, 1)) * estimates.error
    ends = estimates.value - half, estimates.value + half
    return np.clip(ends[0], lowest, highest), np.clip(ends[1], lowest, highest)


def share_interval(
    estimates: Spread,
) -> tuple[Float[np.ndarray, " number"], Float[np.ndarray, " number"]]:
    r"""Wilson's interval of a share, for as many independent prompts as its error is worth.

    The design effect, $V / (p (1 - p) / n)$, comes from the prompts of the rarer kind. With few of
    them it says little, so one more is counted with the greatest effect that the units allow, one
    prompt a level of the fewest. With none, as at 0 and 1, that effect alone is left: the ends are
    those of a share that was never seen in `Units.fewest` draws.
    """
    p, units = np.clip(estimates.value, 0, 1), estimates.units
    n = float(units.cells.n_levels)
    rare, greatest = n * np.minimum(p, 1 - p), n / units.fewest
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = np.where(rare > 0, estimates.error**2 / (p * (1 - p) / n), 1.0)
    effect = (rare * np.maximum(effect, 1.0) + greatest) / (rare + 1)
    quantile = stats.t.ppf(0.5 + LEVEL / 2, np.maximum(estimates.df, 1))
    low, high = _wilson(p, n / effect, np.where(rare > 0, quantile, _Z))
    gone = np.where(np.isnan(estimates.error), np.nan, 0.0)
    return low + gone, high + gone


def _wilson(
    p: Float[np.ndarray, " number"],
    n: Float[np.ndarray, " number"],
    z: float | Float[np.ndarray, " number"],
) -> tuple[Float[np.ndarray, " number"], Float[np.ndarray, " number"]]:
    """Wilson (1927), also for a number of draws that is not whole."""
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def ratio_statistic(
    values: Float[np.ndarray, "number prompt"], counts: Float[np.ndarray, " prompt"]
) -> Statistic:
    r"""$\sum_x w v(x) / \sum_x w n(x)$ of each row of values."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        return np.moveaxis((weights @ values.T) / (weights @ counts)[..., None], -1, 0)

    return statistic
