"""The runs and comparisons that pages can choose from: the user's own, and the shipped ones.

An id is what the URL holds: the name, or `example:` and the name for what is shipped.
"""

from pathlib import Path

from csreft_core.comparison.folder import Comparison, list_comparisons, shipped_comparisons
from csreft_core.errors import RunError
from csreft_core.runs.all_runs import Run, example_runs, find_run, list_runs, runs_root

EXAMPLE = "example:"
ACTIVE = ("queued", "running")


def is_example(identity: str) -> bool:
    """Whether the id is that of a shipped run or comparison."""
    return identity.startswith(EXAMPLE)


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


def other_runs(run: Run) -> dict[str, Run]:
    """Every run beside this one that has an adapter, by its id; in the order of `all_runs`."""
    return {
        identity: other
        for identity, other in all_runs().items()
        if other.path != run.path and other.adapter_path.exists()
    }


def all_comparisons() -> dict[str, Comparison]:
    """Every readable comparison by its id: the shipped ones, then those in the runs folder."""
    shipped = {EXAMPLE + c.name: c for c in shipped_comparisons()}
    return shipped | {c.name: c for c in list_comparisons(runs_root())}


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
