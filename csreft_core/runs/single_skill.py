"""Runs that learn one skill only: how they are made from a run, and which of them are there.

They are runs like any other, with the rows of one skill to train on and all rows to be tested on.
Nothing here starts a training.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from csreft_core.config import Config
from csreft_core.errors import RunError, SkillSetError
from csreft_core.runs.all_runs import Run, list_runs, run_name
from csreft_core.skills.skill_set import Row, SkillSet


def only_rows(skill_set: SkillSet, skill: str) -> SkillSet:
    """The data with the train rows of one skill only; every other split stays whole.

    The skills keep their order, so the adapter keeps its k subspaces and their names.

    Raises:
        SkillSetError: the skill has no train row of its own, or another skill has no row besides
            its train rows, so nothing could be measured on it.
    """
    candidates = [row for row in skill_set.rows if row.split != "train" or row.skills == (skill,)]
    if not any(row.split == "train" for row in candidates):
        raise SkillSetError(f"no train row has the skill {skill!r} alone; it cannot be trained on")
    first = {name: _first_of(candidates, name) for name in skill_set.names}
    missing = [name for name, row in first.items() if row is None]
    if missing:
        raise SkillSetError(
            f"the skill {missing[0]!r} has train rows only; training on {skill!r} alone needs "
            f"rows of {missing[0]!r} in another split, to be measured on"
        )
    # A skill set lists its skills by first appearance, which the missing rows would change.
    front = [row for row in first.values() if row is not None]
    rows = [*front, *(row for row in candidates if all(row is not other for other in front))]
    return SkillSet(tuple(rows), skill_set.names)


def _first_of(rows: Iterable[Row], name: str) -> Row | None:
    return next((row for row in rows if row.skills == (name,)), None)


def only_config(config: Config) -> Config:
    """The settings of such a run: those of the run itself, without what it was made with."""
    return replace(config, provenance=None)


def only_name(name: str, skill: str) -> str:
    """The name that such a run gets, such as `mine-only-french`."""
    return run_name(f"{name}-only-{skill}", Path("there-is-no-such-folder"))


def find_only_runs(
    config: Config,
    skills: Iterable[str],
    name: str,
    root: Path,
    read: Callable[[Run], SkillSet] = Run.skill_set,
) -> dict[str, Run]:
    """The runs that learn one skill only, by that skill; the newest of each.

    A run counts if it has the name, the settings, and train rows of that skill alone.

    Args:
        config: Settings of the run that they are made from.
        skills: To look for.
        name: Of the run that they are made from.
        root: Folder of the runs.
        read: Gives the data of a run; the app keeps what it has read.
    """
    by_skill: dict[str, Run] = {}
    runs = list_runs(root)
    for skill in skills:
        start = only_name(name, skill)
        for run in runs:
            if (
                run.name.startswith(start)
                and same_settings(run.config(), config)
                and (trained_skills(read(run)) == (skill,))
            ):
                by_skill[skill] = run
                break
    return by_skill


def trained_skills(skill_set: SkillSet) -> tuple[str, ...]:
    """The skills that have train rows."""
    rows = (row for row in skill_set.rows if row.split == "train")
    return tuple(dict.fromkeys(skill for row in rows for skill in row.skills))


def the_trained_skill(run: Run) -> str:
    """The one skill that a run has train rows of.

    Raises:
        RunError: it has those of none or of several.
    """
    skills = trained_skills(run.skill_set())
    if len(skills) != 1:
        raise RunError(
            f"run {run.name!r} learns {len(skills)} skills; give runs that learn one skill each"
        )
    return skills[0]


class Ends(NamedTuple):
    """A skill at the first and at the last evaluation of a run.

    Attributes:
        skill: Its name.
        loss: Before and after, in nats per answer token.
        exact_match: Before and after, 0 to 1, teacher-forced.
        n: Prompts.
    """

    skill: str
    loss: tuple[float, float]
    exact_match: tuple[float, float]
    n: int


def first_and_last(run: Run) -> list[Ends]:
    """Every skill at the first and at the last evaluation.

    Raises:
        RunError: there are not two evaluations yet.
    """
    evaluations = run.metrics("eval")
    if len(evaluations) < 2:
        raise RunError(f"run {run.name!r} is not evaluated twice yet; wait until it is done")
    first, last = evaluations[0]["skills"], evaluations[-1]["skills"]
    return [
        Ends(
            skill,
            (first[skill]["loss"], scores["loss"]),
            (first[skill]["exact_match"], scores["exact_match"]),
            scores["n"],
        )
        for skill, scores in last.items()
    ]


def same_settings(a: Config, b: Config) -> bool:
    """Equal in all that the user sets; the trainer writes the provenance and the threads."""
    return _bare(a) == _bare(b)


def _bare(config: Config) -> Config:
    return replace(config, provenance=None, train=replace(config.train, threads=None))
