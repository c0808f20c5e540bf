"""A few compute at once, all others wait in line, and the line always moves."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Lock
from typing import Any

import pytest

from csreft_core.app.answers import panels as compare
from csreft_core.app.page import cached, shell
from csreft_core.app.page.turns import Turns
from csreft_core.base.load import Base, load_base
from csreft_core.inference.loaded_bases import LoadedBases

LONG = 30.0  # seconds: nothing here waits so long unless it hangs
NEVER = 2 * LONG
SOON = 0.05


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for everybody."""
    with ThreadPoolExecutor(40) as threads:
        yield threads


@contextmanager
def held(turns: Turns, pool: ThreadPoolExecutor) -> Iterator[None]:
    """A turn that somebody else holds."""
    begun, ends = Event(), Event()

    def hold() -> None:
        with turns.turn():
            begun.set()
            assert ends.wait(LONG)

    holder = pool.submit(hold)
    assert begun.wait(LONG)
    try:
        yield
    finally:
        ends.set()
        holder.result(LONG)


def in_turn(turns: Turns, pool: ThreadPoolExecutor, call: Callable[[], object]) -> Future:
    """What somebody else does once it is their turn."""

    def wait_and_call() -> object:
        with turns.turn():
            return call()

    return pool.submit(wait_and_call)


def test_never_more_than_so_many_compute_and_all_come_to_it(pool):
    turns, lock, now, most = Turns(at_once=3, patience_s=NEVER), Lock(), [0], [0]
    three_at_once = Event()

    def compute() -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            if now[0] == 3:
                three_at_once.set()
        assert three_at_once.wait(LONG)
        with lock:
            now[0] -= 1

    for done in [in_turn(turns, pool, compute) for _ in range(30)]:
        done.result(LONG)
    assert (now, most) == ([0], [3])


def test_who_waits_begins_when_a_turn_is_free(pool):
    turns, begun = Turns(at_once=1, patience_s=NEVER), Event()
    with held(turns, pool):
        waits = in_turn(turns, pool, begun.set)
        assert not begun.wait(SOON)
    waits.result(LONG)
    assert begun.is_set()


def test_a_turn_that_does_not_end_stops_nobody_for_long(pool):
    turns = Turns(at_once=1, patience_s=SOON)
    with held(turns, pool):
        for done in [in_turn(turns, pool, lambda: 7) for _ in range(5)]:
            assert done.result(LONG) == 7


def test_one_at_a_time_loses_patience(pool):
    turns, begun = Turns(at_once=1, patience_s=SOON), time.monotonic()
    with held(turns, pool):
        for done in [in_turn(turns, pool, lambda: 7) for _ in range(5)]:
            done.result(LONG)
    assert time.monotonic() - begun >= 5 * SOON


def test_who_went_on_without_a_turn_gives_none_back(pool):
    turns = Turns(at_once=1, patience_s=SOON)
    with held(turns, pool), turns.turn():
        with turns.stepped_aside():
            pass
        # The holder still has the only turn.
        begun = Event()
        waits = in_turn(turns, pool, begun.set)
    waits.result(LONG)


def test_an_error_gives_the_turn_back(pool):
    turns = Turns(at_once=1, patience_s=NEVER)
    with pytest.raises(ValueError, match="a page's own"), turns.turn():
        raise ValueError("a page's own")
    assert in_turn(turns, pool, lambda: 7).result(LONG) == 7


def test_who_steps_aside_lets_another_in_and_comes_back_after_them(pool):
    turns, back = Turns(at_once=1, patience_s=NEVER), Event()
    inside, leave = Event(), Event()

    def stay() -> None:
        inside.set()
        assert leave.wait(LONG)

    def aside() -> None:
        with turns.stepped_aside():
            assert inside.wait(LONG)
        back.set()

    waits = in_turn(turns, pool, aside)
    other = in_turn(turns, pool, stay)
    assert inside.wait(LONG)
    assert not back.wait(SOON)
    leave.set()
    waits.result(LONG)
    other.result(LONG)
    assert back.is_set()


def test_stepping_aside_without_a_turn_changes_nothing(pool):
    turns = Turns(at_once=1, patience_s=NEVER)
    with turns.stepped_aside():
        assert in_turn(turns, pool, lambda: 7).result(LONG) == 7
    assert in_turn(turns, pool, lambda: 8).result(LONG) == 8


@pytest.fixture
def one_turn(monkeypatch: pytest.MonkeyPatch) -> Turns:
    """Pages compute one at a time."""
    turns = Turns(at_once=1, patience_s=NEVER)
    for module in (shell, cached, compare):
        monkeypatch.setattr(module, "TURNS", turns)
    return turns


def test_a_page_computes_nothing_before_its_turn(open_app, one_turn, pool, monkeypatch):
    begun = Event()
    monkeypatch.setattr(shell, "mark_interrupted", begun.set)
    with held(one_turn, pool):
        page = pool.submit(open_app, "pages/Runs.py")
        assert not begun.wait(1)
    assert page.result(LONG).title
    assert begun.is_set()


@pytest.mark.parametrize(
    ("page", "query"),
    [
        ("app.py", {}),
        ("app.py", {"run": "nowhere"}),
        ("pages/Model.py", {"base-folder": "nowhere"}),
    ],
)
def test_a_page_gives_its_turn_back_whatever_it_shows(open_app, one_turn, pool, page, query):
    open_app(page, **query)
    assert in_turn(one_turn, pool, lambda: 7).result(LONG) == 7


def test_others_compute_while_a_base_loads(open_app, one_turn, pool, monkeypatch):
    def load(*args: Any, **kwargs: Any) -> Base:
        assert in_turn(one_turn, pool, lambda: 7).result(LONG) == 7
        return load_base(*args, **kwargs)

    bases = LoadedBases(load=load)
    monkeypatch.setattr(cached, "bases", lambda: bases)
    open_app("pages/Model.py")
    assert bases.everything()


def test_others_compute_while_answers_are_streamed(open_app, one_turn, pool, monkeypatch):
    asked = []

    def ask_together(columns: list, *_: object) -> None:
        assert in_turn(one_turn, pool, lambda: 7).result(LONG) == 7
        asked.extend(columns)

    monkeypatch.setattr(compare, "ask_together", ask_together)
    open_app("pages/Compare.py", prompt="What is dog in French?")  # no kept answer to show
    assert asked
