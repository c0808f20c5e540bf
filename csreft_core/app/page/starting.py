"""Starting trainings from a page: as many as the queue has room for."""

from csreft_core.app.page.ceilings import MOST_WAITING
from csreft_core.config import Config
from csreft_core.errors import RunError
from csreft_core.runs import queue
from csreft_core.runs.all_runs import Run, runs_root
from csreft_core.skills.skill_set import SkillSet


def check_room(n: int = 1) -> None:
    """Check that more runs can wait.

    Args:
        n: How many are to be started.

    Raises:
        RunError: the queue is full.
    """
    waiting = queue.n_waiting(runs_root())
    if waiting + n > MOST_WAITING:
        raise RunError(
            f"{waiting} runs wait for their turn, and {MOST_WAITING} can; wait for one to end or "
            "stop some, or start this one on the command line"
        )


def submit(config: Config, skill_set: SkillSet, name: str) -> Run:
    """Make a run and start the process that will train it; raises as `queue.submit`."""
    check_room()
    return queue.submit(config, skill_set, name)


def resume(run: Run) -> None:
    """Put a run into the queue again; raises as `queue.resume`."""
    check_room()
    queue.resume(run)
