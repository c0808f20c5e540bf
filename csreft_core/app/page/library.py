"""The runs that pages can choose from: the user's own, and the shipped examples.

A run's id is what the URL holds: its name, or `example:` and its name.
"""

from pathlib import Path

from csreft_core.errors import RunError
from csreft_core.runs.all_runs import Run, example_runs, find_run, list_runs, runs_root

EXAMPLE = "example:"
ACTIVE = ("queued", "running")


def is_example(run_id: str) -> bool:
    """Whether the id is that of a shipped run."""
    return run_id.startswith(EXAMPLE)


def run_id(run: Run) -> str:
    """The id of a run."""
    own = run.path.absolute().parent == runs_root()
    return run.name if own else EXAMPLE + run.name


def label(identity: str) -> str:
    """What a list shows for an id."""
    name = identity.removeprefix(EXAMPLE)
    return f"{name} (shipped)" if is_example(identity) else name


def all_runs() -> dict[str, Run]:
    """Every readable run by its id: the user's, newest first, then the examples."""
    own = {run.name: run for run in list_runs(runs_root())}
    return own | {EXAMPLE + run.name: run for run in _examples()}


def _examples() -> list[Run]:
    """`recommended` first: it is what a first start shows."""
    return sorted(
        example_runs(), key=lambda run: (not run.name.startswith("recommended"), run.name)
    )


def example(preset: str, runs: dict[str, Run]) -> Run | None:
    """The first shipped run of a preset."""
    start = EXAMPLE + preset
    return next((run for name, run in runs.items() if name.startswith(start)), None)


def why_not(identity: str, root: Path) -> str:
    """Why an id that came from a URL cannot be shown."""
    try:
        find_run(identity, root)
    except RunError as error:
        return str(error)
    return f"There is no run {identity!r}."
