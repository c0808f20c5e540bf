"""What the folder of a comparison of methods holds, as tidy tables."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from csreft_core.analysis.methods import comparison as compared
from csreft_core.comparison.folder import Plan, open_comparison


@dataclass(frozen=True)
class MethodTables:
    """The tidy tables of a comparison, one row for each cell or each number of a cell.

    Attributes:
        name: Of the comparison.
        cells: method, seed, state, message, subspaces, router, total, share, and what `MEASURED`
            names, among others.
        scores: method, seed, split, skill, loss, exact_match, n.
        interference: method, seed, start, trained, evaluated, change, before, exact_change,
            exact_before, n.
        sequential: method, seed, stage, trained, evaluated, loss, exact_match.
        conflict: method, seed, first, second, cosine.
        total_rank: k r of the methods that edit states in subspaces.
        work: What every method had to do: data, sizes and steps; equal for two comparisons whose
            methods can be held against each other.
        base_fingerprint: Of the base (`base_record`).
    """

    name: str
    cells: pd.DataFrame
    scores: pd.DataFrame
    interference: pd.DataFrame
    sequential: pd.DataFrame
    conflict: pd.DataFrame
    total_rank: dict[str, int]
    work: tuple[Any, ...]
    base_fingerprint: str


def read_tables(comparison: str) -> MethodTables:
    """The tables of a comparison's folder.

    Raises:
        RunError: no comparison there, or a damaged one.
    """
    folder = open_comparison(Path(comparison))
    interference = compared.interference(folder)
    n_skills = interference["trained"].nunique()
    plan = folder.plan()
    edits = {
        label: variant.config.adapter
        for label, variant in plan.variants.items()
        if variant.config.method.name == "csreft"
    }
    return MethodTables(
        folder.name,
        compared.cells(folder),
        compared.scores(folder),
        interference,
        compared.sequential(folder),
        compared.conflict(folder),
        {label: edit.rank * (edit.n_subspaces or n_skills) for label, edit in edits.items()},
        _work(plan),
        plan.base_fingerprint,
    )


def _work(plan: Plan) -> tuple[Any, ...]:
    first = plan.first
    return (
        first.data,
        first.train.steps,
        first.train.batch_size,
        plan.single_steps,
        plan.sequential_steps,
        plan.per_skill,
        plan.budget,
    )
