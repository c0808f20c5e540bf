"""Sentences about the tables of `geometry`: each is computed from its table alone."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from csreft_core.analysis.labels import (
    ALL_SKILLS,
    BETWEEN_SKILLS,
    DATA_OVERLAP,
    DIFFERENT_SKILLS,
    FROM_START,
    RANDOM,
    RANDOM_HIGH,
    RANDOM_LOW,
    RANDOM_MEDIAN,
    READ_LEAK,
    RUN,
    SAME_SKILL,
    WRITE_LEAK,
)

_LOW, _MEDIAN, _HIGH = RANDOM_LOW, RANDOM_MEDIAN, RANDOM_HIGH
_HELD_APART = ("joint", "sequential", "fixed")


def closer_than_chance(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Pairs of `pairs_table` whose smallest angle is below that of 97.5 % of random pairs."""
    bound = _chance(table, "smallest_angle")[0]
    pairs = table[(table["kind"] == RUN) & (table["smallest_angle"] < bound)]
    return list(zip(pairs["a"], pairs["b"], strict=True))


def sentence_pairs(table: pd.DataFrame, measure: str = "smallest_angle") -> str:
    """How near the closest pair is, what chance gives, and what the constraint forces.

    Args:
        table: `pairs_table`.
        measure: Another of its columns is told as a range beside that of chance.
    """
    run, first = table[table["kind"] == RUN], table.iloc[0]
    low, median, high = (_degrees(x) for x in _chance(table, "smallest_angle"))
    shape = f"of this shape (rank {first['rank']}, d = {first['d_model']})"
    chance = (
        f"Two random subspaces {shape} have a smallest angle of {low} to {high} (median {median}; "
        f"95 % of {first['draws']} draws)."
    )
    if run.empty:
        return f"This run has one subspace, so it has no pair to compare. {chance}"
    forced = (
        f"The constraint “{first['constraint']}” holds them there by construction, so this tells "
        "nothing about the skills."
        if first["constraint"] in _HELD_APART
        else ""
    )
    if measure != "smallest_angle":
        return f"{_range_of(table, run, measure)} {forced}".strip()
    closest = run.iloc[int(run["smallest_angle"].to_numpy().argmin())]
    if forced:
        angle = _degrees(closest["smallest_angle"])
        return f"All {len(run)} pairs are at {angle}. {forced} {chance}"
    near = [f"{a} and {b}" for a, b in closer_than_chance(table)]
    verdict = (
        f"{len(near)} of {len(run)} pairs share more than 97.5 % of random pairs do: {_some(near)}."
        if near
        else f"None of the {len(run)} pairs is closer than chance."
    )
    return (
        f"The closest pair, {closest['a']} and {closest['b']}, is at "
        f"{_degrees(closest['smallest_angle'])}. {verdict} {chance}"
    )


def _range_of(table: pd.DataFrame, run: pd.DataFrame, measure: str) -> str:
    shown = _degrees if measure in ("mean_angle", "grassmann") else _number
    low, median, high = (shown(x) for x in _chance(table, measure))
    values, name = run[measure], measure.replace("_", " ").replace("excess", "overlap above chance")
    top = run.iloc[int(values.to_numpy().argmax())]
    chance = f"random: {low} to {high}, median {median} (95 % of {table.iloc[0]['draws']} draws)."
    least, most = shown(values.min()), shown(values.max())
    if least == most:
        return f"The {name} is {most} for all {len(run)} pairs; {chance}"
    return (
        f"Over {len(run)} pairs the {name} goes from {least} to {most} ({top['a']} and "
        f"{top['b']}); {chance}"
    )


def sentence_angles(table: pd.DataFrame) -> str:
    """The angles of the pair, and how many are below what chance gives."""
    run = table[table["kind"] == RUN]
    if run.empty:
        return "This run has one subspace, so it has no pair to compare."
    low = table[table["kind"] == _LOW].set_index("m")["angle"]
    below = int((run["angle"] < run["m"].map(low)).sum())
    a, b = run.iloc[0][["a", "b"]]
    shown = _some([_degrees(angle) for angle in run["angle"]], most=4)
    count = below or "None"
    return (
        f"The principal angles between {a} and {b} are {shown}. {count} of them "
        f"{'is' if below < 2 else 'are'} below the band of random subspaces (95 % of "
        f"{table.iloc[0]['draws']} draws)."
    )


def sentence_gram(table: pd.DataFrame) -> str:
    """The orthonormality error within a basis, and the largest norm between two."""
    run, chance = (table[table["kind"] == kind] for kind in (RUN, RANDOM))
    same = run["row_skill"] == run["column_skill"]
    identity = (run["row"] == run["column"]).astype(float)
    within = f"Each basis is orthonormal to {(run['value'] - identity)[same].abs().max():.1e}"
    norms = gram_norms(run)
    if norms.empty:
        return f"{within}, the largest entry of |R Rᵀ − I|; with one subspace, no block is beside."
    a, b = norms.index[int(norms.to_numpy().argmax())]
    return (
        f"{within} (largest entry of |RᵢRᵢᵀ − I|). Between blocks, the largest norm ‖RᵢRⱼᵀ‖ is "
        f"{_number(norms.max())} ({a}, {b}); in the random draw it is "
        f"{_number(gram_norms(chance).max())}."
    )


def gram_norms(table: pd.DataFrame) -> pd.Series:
    r"""$G_{ij} = \|R_i R_j^\top\|_F$ of each pair, from the rows of one kind of `gram_table`."""
    squares = table.assign(square=table["value"] ** 2)
    sums = squares.groupby(["row_skill", "column_skill"], sort=False)["square"].sum() ** 0.5
    skills = list(dict.fromkeys(table["row_skill"]))
    return sums.loc[list(combinations(skills, 2))]


def sentence_leaks(table: pd.DataFrame, measure: str) -> str:
    """The largest value of one measure, and how many pairs are above chance."""
    part = table[table["measure"] == measure]
    run = part[part["kind"] == RUN].dropna(subset="value")
    if run.empty:
        return "There is no pair of skills to compare."
    low, median, high = _chance(part, "value")
    top = run.iloc[int(run["value"].to_numpy().argmax())]
    if measure == DATA_OVERLAP:  # symmetric: each pair stands in the table twice
        order = {skill: place for place, skill in enumerate(dict.fromkeys(run["source"]))}
        run = run[run["source"].map(order) < run["target"].map(order)]
    above = int((run["value"] > high).sum())
    what = {
        WRITE_LEAK: "Of what an edit writes, at most {} lands in another's subspace",
        READ_LEAK: "Of what a skill reads, up to {} lies in another's subspace",
        DATA_OVERLAP: "Weighted by where the states are, the overlap is at most {}",
    }[measure].format(_number(top["value"]))
    n = int(top["n"])
    return (
        f"{what} ({top['source']} → {top['target']}; {n} states). Random: "
        f"{_number(low)} to {_number(high)}, median {_number(median)}; {above} of {len(run)} "
        "pairs are above."
    )


def sentence_mixing(table: pd.DataFrame) -> str:
    """What the constraint kept apart at the edited block, and where it is after the last."""
    cross = table[(table["kind"] == RUN) & (table["source"] != table["target"])]
    if cross.empty:
        return "This run has one subspace, so nothing can be mixed into another."
    first, last = table["layer"].min(), table["layer"].max()
    start = cross.loc[cross["layer"] == first, "value"].max()
    end = cross[cross["layer"] == last]
    top = end.iloc[int(end["value"].to_numpy().argmax())]
    low, _, high = _chance(table[table["layer"] == last], "value")
    own = table[(table["kind"] == RUN) & (table["source"] == table["target"])]
    kept = own.groupby("layer")["value"].mean()
    return (
        f"At the edited block {first} the norm is at most {_number(start)}; after block {last} it "
        f"is up to {_number(top['value'])} ({top['source']} → {top['target']}), random directions "
        f"{_number(low)} to {_number(high)}: {int((end['value'] > high).sum())} of {len(end)} "
        f"pairs are above. A skill's own subspace keeps {kept[last] / kept[first]:.0%} of its norm "
        f"({int(top['n'])} prompts)."
    )


def sentence_drift(table: pd.DataFrame) -> str:
    """How far the subspaces turned, and how near they came to each other."""
    run = table[table["kind"] == RUN]
    if run.empty:
        return "This run has no snapshots."
    first, last = int(run["step"].min()), int(run["step"].max())
    turned = run[(run["measure"] == FROM_START) & (run["step"] == last)]
    start = table[table["measure"] == FROM_START]
    low, high = (_degrees(x) for x in _chance(start, "angle")[::2])
    limit = start.loc[start["kind"] == "float16 resolution", "angle"].iloc[0]
    angles = turned.set_index("a")["angle"]
    least = f", and {angles.idxmin()} least, by {_degrees(angles.min())}" if len(angles) > 1 else ""
    text = (
        f"From step {first} to {last}, {angles.idxmax()} turned {'most, ' if least else ''}by "
        f"{_degrees(angles.max())}{least} (largest angle; two random subspaces: {low} to {high}). "
        f"Snapshots resolve {_degrees(limit, 2)}."
    )
    between = run[run["measure"] == BETWEEN_SKILLS]
    if between.empty:
        return text
    return f"{text} No pair was ever closer than {_degrees(between['angle'].min())}."


def sentence_training(table: pd.DataFrame) -> str:
    """The largest errors, and the last overlap next to chance."""
    if table.empty:
        return "This run has no records of its training."
    error = table["orthonormality_error"].max()
    text = f"Over {len(table)} records the orthonormality error was never above {error:.1e}"
    promised = table["constraint_error"].dropna()
    if len(promised):
        text += (
            f", and what “{table['constraint'].iloc[0]}” promises was kept to {promised.max():.1e}"
        )
    overlap = table["overlap"].dropna()
    if overlap.empty:
        return f"{text}."
    return (
        f"{text}. The mean overlap ends at {_number(overlap.iloc[-1])}; random subspaces have "
        f"{_number(table['chance'].iloc[0])}."
    )


def sentence_seeds(table: pd.DataFrame) -> str:
    """Whether the same skill's subspace comes again, against other skills' and chance."""
    runs = table.loc[table["run"] != "", "run"].nunique()
    if not runs:
        return "No other run to compare with."
    same = table[table["kind"] == SAME_SKILL]
    other = table.loc[table["kind"] == DIFFERENT_SKILLS, "overlap"]
    if same.empty:
        whole = table[table["kind"] == ALL_SKILLS]
        parts = _chance_of(table, table[table["kind"] == DIFFERENT_SKILLS].iloc[0])
        return (
            "No skill here has a subspace of the same name in the other run. The subspaces there "
            f"share {_span(other)} with those here (random: {_span(pd.Series(parts))}); all "
            f"together share {_span(whole['overlap'])} (random: "
            f"{_span(pd.Series(_chance_of(table, whole.iloc[0])))})."
        )
    low, high = _chance_of(table, same.iloc[0])
    again = int((same["overlap"] > high).sum())
    return (
        f"In {again} of {len(same)} cases ({same['a'].nunique()} skills, {runs} other "
        f"{'run' if runs == 1 else 'runs'}) a skill's subspace is found again more than by chance: "
        f"overlap {_span(same['overlap'])}, different "
        f"skills at most {_number(other.max())}, random {_number(low)} to {_number(high)}. The "
        f"smallest angle is {_degrees(same['smallest_angle'].min())} to "
        f"{_degrees(same['smallest_angle'].max())}, the largest "
        f"{_degrees(same['largest_angle'].min())} to {_degrees(same['largest_angle'].max())}."
    )


def _chance(table: pd.DataFrame, column: str) -> tuple[float, float, float]:
    """Low, median and high of the random rows."""
    values = table.set_index("kind")[column]
    return values[_LOW], values[_MEDIAN], values[_HIGH]


def _chance_of(table: pd.DataFrame, row: pd.Series) -> tuple[float, float]:
    """Low and high overlap of random pairs with the ranks of a row of `seeds_table`."""
    fits = (table["rank_a"] == row["rank_a"]) & (table["rank_b"] == row["rank_b"])
    low, _, high = _chance(table[fits], "overlap")
    return low, high


def _degrees(angle: float, digits: int = 1) -> str:
    return f"{np.degrees(angle):.{digits}f}°"


def _number(value: float) -> str:
    """Three digits behind the point, or the power of ten of what is smaller.

    Below 1e-12, float64 itself has no more to tell.
    """
    return f"{value:.3f}" if abs(value) >= 5e-4 or abs(value) < 1e-12 else f"{value:.0e}"


def _span(values: pd.Series) -> str:
    low, high = _number(values.min()), _number(values.max())
    return low if low == high else f"{low} to {high}"


def _some(names: Sequence[str], most: int = 3) -> str:
    if len(names) <= most:
        return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
    return f"{', '.join(names[:most])} and {len(names) - most} more"
