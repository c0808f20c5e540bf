"""What a figure is about, as plain text: a cache can be keyed by it, code and a command name it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from csreft_core.config import PROJECT, Config, lead
from csreft_core.runs.all_runs import Run

# What the tables of a skill set depend on; other settings must not empty their cache.
_SKILL_SETTINGS = (
    "base.path",
    "base.revision",
    "data.template",
    "data.skill_column",
    "adapter.positions",
    "adapter.tied",
    "train.batch_size",
    "train.accumulate",
    "train.seed",
    "train.max_length",
)


@dataclass(frozen=True)
class Source:
    """What the tables of a figure are made from.

    Attributes:
        command: The command that prints such tables: `inspect` those of a run, `check-skills` those
            of a skill set, `judge` those of comparisons and published numbers, which need nothing
            opened.
        path: The run's folder, or the skill set as `data.path`; empty for `judge`.
        settings: Of a skill set, what differs from the preset `recommended`, as `path=value`.
    """

    command: Literal["inspect", "check-skills", "judge"]
    path: str = ""
    settings: tuple[str, ...] = ()


JUDGED = Source("judge")


def of_run(run: Run) -> Source:
    """A run, for figures about it."""
    return Source("inspect", str(run.path))


def of_skills(config: Config) -> Source:
    """The skill set of a config, with those of its settings that matter for its tables."""
    different = lead("recommended", config)
    relevant = (text for text in different if text.partition("=")[0] in _SKILL_SETTINGS)
    return Source("check-skills", config.data.path, tuple(relevant))


def short_path(path: Path) -> str:
    """A folder as code and commands name it: short where that leads there from here.

    A folder below the project is given relative to it, if the process runs there.
    """
    folder, project = path.absolute(), PROJECT.absolute()
    if not folder.is_relative_to(project):
        return str(folder)
    short = folder.relative_to(project)
    return str(short) if short.is_dir() else str(folder)
