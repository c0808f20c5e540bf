"""The claims of the papers on this base: measurements, conditions and verdicts, as tables.

The measurements come from trained runs, from a comparison of methods and from arithmetic; the rules
are in `claims.rules`, the sentences in `claims.sentences`.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from csreft_core.analysis.claims.comparison import (
    ACROSS,
    PAIRS,
    SAME_RANK,
    comparison_measurements,
    source_of,
)
from csreft_core.analysis.claims.memorisation import MEMORISED, memory_measurements
from csreft_core.analysis.claims.parameters import calculator_table
from csreft_core.analysis.claims.rules import (
    MEASURE_COLUMNS,
    judge_claims,
    judge_conditions,
)
from csreft_core.analysis.claims.runs import Measurement
from csreft_core.analysis.claims.shipped_runs import (
    EXAMPLES,
    FROM_RUNS,
    run_measurements,
    runs_table,
)
from csreft_core.analysis.methods.tables import read_tables
from csreft_core.analysis.statistics.interval_words import ARITHMETIC
from csreft_core.comparison.folder import open_comparison, shipped_comparisons
from csreft_core.inference.engine import Engine

__all__ = ["runs_table"]

TABLES = ("verdicts", "conditions", "measurements", "runs")
"""The tables of this view, `NAME_table`; the first is what `judge claims` prints by default."""

_PROGRAM = "python -m csreft_core"
_PRESETS = {"C2.none": "constraint", "C2.positions": "positions", "R2": "positions"}


def preset_of(condition: str) -> str:
    """The preset of `compare` that has the method that is judged."""
    if condition in SAME_RANK:
        return "rank"
    return next((p for start, p in _PRESETS.items() if condition.startswith(start)), "main")


def verdicts_table(
    *,
    comparisons: Sequence[str] | None = None,
    examples: str = EXAMPLES,
    memorised: str = MEMORISED,
    engine: Engine | None = None,
) -> pd.DataFrame:
    """The verdict on each claim; columns and rules in `claims.rules.judge_claims`.

    Args:
        comparisons: Folders of comparisons of methods; None takes the shipped ones. A condition is
            measured on the first one that has its methods.
        examples: Folder of the runs that `build-examples` makes.
        memorised: The file that `memorise` makes; where there is none, R3 is not measured.
        engine: Their base, where it is loaded already.

    Raises:
        RunError, AdapterError: one of them is missing or damaged.
    """
    return judge_claims(
        conditions_table(
            comparisons=comparisons, examples=examples, memorised=memorised, engine=engine
        )
    )


def conditions_table(
    *,
    comparisons: Sequence[str] | None = None,
    examples: str = EXAMPLES,
    memorised: str = MEMORISED,
    engine: Engine | None = None,
) -> pd.DataFrame:
    """Every condition of every claim with what was measured, see `claims.rules.judge_conditions`.

    Args:
        comparisons: See `verdicts_table`.
        examples: See `verdicts_table`.
        memorised: See `verdicts_table`.
        engine: See `verdicts_table`.

    Returns:
        The columns of `judge_conditions`, and command (that measures it again, in a shell).
    """
    folders = shipped() if comparisons is None else comparisons
    measured = measurements_table(
        comparisons=folders, examples=examples, memorised=memorised, engine=engine
    )
    table = judge_conditions(measured)
    asked = [open_comparison(Path(folder)) for folder in folders]
    recorded = {source_of(one.name): one.plan().command for one in asked}
    return table.assign(
        command=[
            command_of(name, *(recorded.get(part, "") for part in _comparisons(name, source)))
            for name, source in zip(table["condition"], table["source"], strict=True)
        ]
    )


def _comparisons(condition: str, source: str) -> list[str]:
    """The comparisons that a source names: two where a condition is measured across them."""
    return source.split(", ") if condition in ACROSS else [source]


def measurements_table(
    *,
    comparisons: Sequence[str] | None = None,
    examples: str = EXAMPLES,
    memorised: str = MEMORISED,
    engine: Engine | None = None,
) -> pd.DataFrame:
    """What was measured, a row for each condition that could be; see `claims.rules`.

    Args:
        comparisons: See `verdicts_table`.
        examples: See `verdicts_table`.
        memorised: See `verdicts_table`.
        engine: See `verdicts_table`.

    Returns:
        The columns `claims.rules.MEASURE_COLUMNS`.
    """
    folders = shipped() if comparisons is None else comparisons
    rows = [
        *arithmetic(),
        *run_measurements(Path(examples), engine),
        *comparison_measurements([read_tables(folder) for folder in folders]),
        *memory_measurements(memorised),
    ]
    return pd.DataFrame(rows, columns=list(MEASURE_COLUMNS))


def shipped() -> tuple[str, ...]:
    """Folders of the shipped comparisons."""
    return tuple(str(comparison.path) for comparison in shipped_comparisons())


def arithmetic() -> list[Measurement]:
    """C5 from the published shape of Llama-2-7B: the smallest design that section 4 allows."""
    table = calculator_table(subspaces=4, rank=1, layers=1, router="paper")
    parts = table[table["method"] == "CS-ReFT"].set_index("part")
    total = int(parts["parameters"].sum())
    lora = int(table.set_index("method").loc["LoRA of the paper", "parameters"])  # type: ignore[arg-type]
    subspaces, router = (int(parts.loc[p, "parameters"]) for p in ("subspaces", "router"))  # type: ignore[arg-type]
    values = {
        "C5.share": (float(parts["share"].sum()), 0.0098),
        "C5.lora": (lora / total, 12.7),
        "C5.router": (router / total, subspaces / total),
    }
    return [
        {
            "condition": name,
            "value": value,
            "low": value,
            "high": value,
            "control_value": control,
            "n": 0,
            "seeds": 0,
            "over": ARITHMETIC,
            "source": "shape of Llama-2-7B",
        }
        for name, (value, control) in values.items()
    ]


def command_of(condition: str, recorded: str = "", other: str = "") -> str:
    """The shell line that measures a condition again from nothing, with the same settings.

    Args:
        condition: Its id.
        recorded: The command of the comparison that it was measured on; without one, the default
            settings of `compare`.
        other: That of the comparison that has the control, where it is another one.
    """
    judged = f"{_PROGRAM} judge claims --table conditions"
    if condition in FROM_RUNS:
        names, out = " ".join(FROM_RUNS[condition]), f"redone/{condition.partition('.')[0]}"
        return f"{_PROGRAM} build-examples {names} --out {out} && {judged} --set examples={out}"
    if condition in PAIRS:
        own, control = PAIRS[condition]
        wanted = [(preset_of(condition), recorded, ",".join(dict.fromkeys((own, control))), "")]
        if condition in ACROSS:
            wanted = [
                (preset_of(condition), recorded, own, "-own"),
                ("main", other, control, "-control"),
            ]
        # Loss and exact match, from every start, are measured by one command.
        name = condition.removesuffix("_exact").removesuffix("_joint")
        outs = [f"redone/{name}{end}" for _, _, _, end in wanted]
        commands = [
            f"{_without(command, '--out', '--methods') or f'{_PROGRAM} compare --preset {preset}'} "
            f"--methods {methods} --out {out}"
            for (preset, command, methods, _), out in zip(wanted, outs, strict=True)
        ]
        return f"{' && '.join(commands)} && {judged} --set 'comparisons={json.dumps(outs)}'"
    if condition.startswith("R3."):
        return (
            f"{_PROGRAM} memorise --out redone/R3 && {judged} "
            "--set memorised=redone/R3/memorisation.json"
        )
    assert condition.startswith("C5."), condition
    return f"{_PROGRAM} judge parameters --table calculator --set rank=1 --set layers=1"


def _without(command: str, *options: str) -> str:
    """A command without these options and their values."""
    words = shlex.split(command)
    taken = {
        place + ahead for place, word in enumerate(words) if word in options for ahead in (0, 1)
    }
    return shlex.join(word for place, word in enumerate(words) if place not in taken)
