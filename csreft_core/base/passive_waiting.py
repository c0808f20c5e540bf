"""Threads that have nothing to do sleep, so that they do not hold a core that others need.

Torch's threads (OpenMP) wait for each other many times a step. By default they spin meanwhile, and
beside other work the thread that is waited for then finds no core.
"""

import os


def wait_passively() -> None:
    """Let the threads of this process, and of those that it starts, sleep while they wait.

    What the user has set stays. Works only before torch is imported, because OpenMP reads its
    settings when it is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
