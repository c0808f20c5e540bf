"""Turns: a few page runs compute at once, all others wait in line.

Python runs one thread at a time. Among sixty that compute, the server's own thread gets a sixtieth
of it: nobody is served, and `/_stcore/health` is silent. In turns the same work takes as long, the
first visitor is served at once, and the server answers all the while.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Semaphore, local

AT_ONCE = 4
PATIENCE_S = 5.0
"""How long the first in line waits for a page that does not end; then it goes on beside it."""


class Turns:
    """Who may compute now.

    The first in line takes the next turn that is free. Where all are held for long, by a page that
    asks a slow base, it goes on without one, and the next in line becomes the first: whatever the
    pages do, the line moves.

    Args:
        at_once: How many have a turn.
        patience_s: How long the first in line waits, in seconds.
    """

    def __init__(self, at_once: int = AT_ONCE, patience_s: float = PATIENCE_S) -> None:
        self._free, self._first = BoundedSemaphore(at_once), Semaphore()
        self._patience_s = patience_s
        self._mine = local()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait in line, then compute."""
        self._take()
        try:
            yield
        finally:
            self._give()

    @contextmanager
    def stepped_aside(self) -> Iterator[None]:
        """Let others compute while this page waits for something that is not Python's time.

        Without a turn, as a part of a page that is drawn by itself, it changes nothing.
        """
        held = self._give()
        try:
            yield
        finally:
            if held:
                self._take()

    def _take(self) -> None:
        with self._first:
            self._mine.held = self._free.acquire(timeout=self._patience_s)

    def _give(self) -> bool:
        held, self._mine.held = getattr(self._mine, "held", False), False
        if held:
            self._free.release()
        return held


TURNS = Turns()
"""Of this server: one interpreter, one line."""
