"""The shipped runs, made by one command so that anyone can make them again."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from csreft_core.base.load import load_base
from csreft_core.config import Config, configured
from csreft_core.errors import ConfigError
from csreft_core.runs.all_runs import create_run
from csreft_core.runs.run import Run
from csreft_core.skills.skill_set import read_skills
from csreft_core.training.loop import train

THREADS = 2
EXAMPLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "recommended-0": ("recommended", ("train.seed=0",)),
    "recommended-1": ("recommended", ("train.seed=1",)),
    "recommended-2": ("recommended", ("train.seed=2",)),
    "paper-0": ("paper", ()),
    "loreft-0": ("loreft", ()),
    "loreft-1": ("loreft", ("train.seed=1",)),
    "loreft-2": ("loreft", ("train.seed=2",)),
    "oracle-0": ("oracle", ()),
    "two_skills-0": ("loreft", ("data.path=two_skills",)),
    "unsupervised-0": ("unsupervised", ()),
    "unsupervised-1": ("unsupervised", ("train.seed=1",)),
    "unsupervised-2": ("unsupervised", ("train.seed=2",)),
}
"""Name -> preset, and what is set besides."""


def example_config(name: str) -> Config:
    """The config of a shipped run.

    Raises:
        ConfigError: unknown name.
    """
    if name not in EXAMPLES:
        raise ConfigError(f"unknown example {name!r}; choose from {', '.join(EXAMPLES)}")
    start, assignments = EXAMPLES[name]
    return configured(start, [*assignments, f"train.threads={THREADS}"])


def build_examples(
    out: Path, names: Sequence[str] = (), *, steps: int | None = None
) -> Iterator[Run]:
    """Train the shipped runs, one after the other; yields each when it is finished.

    Args:
        out: Folder of the runs; none of them may exist.
        names: Which of `EXAMPLES`; empty means all.
        steps: Instead of the preset's, for a quick trial.

    Raises:
        ConfigError: an unknown name.
        RunError: a run exists.
    """
    configs = {name: example_config(name) for name in names or EXAMPLES}
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        for name, config in configs.items():
            if steps is not None:
                config = replace(config, train=replace(config.train, steps=steps))
            skill_set = read_skills(config.data.path, config.data.skill_column)
            run = create_run(out / name, config, skill_set)
            for _ in train(run, load_base(config.base)):
                pass
            # What belongs to one machine and one moment says nothing about the run.
            (run.path / "lock").unlink(missing_ok=True)
            run.write_status(replace(run.status(), pid=None))
            yield run
    finally:
        torch.set_num_threads(before)
