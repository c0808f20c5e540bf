"""Bases in memory: one load for all who ask, progress, cancel, and never one too many."""

import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import monotonic, sleep

import pytest

from csreft_core.config import BaseConfig
from csreft_core.errors import UnsupportedModelError
from csreft_core.inference.loaded_bases import LoadCancelled, LoadedBases
from tests.families import build
from tests.tiny import tiny_base

ONE, TWO, THREE = (BaseConfig(path=name) for name in ("one", "two", "three"))


class Loader:
    """Loads tiny models in two steps, the second when it is let go."""

    def __init__(self, let_go: bool = True) -> None:
        self.calls: list[str] = []
        self.models: list[weakref.ref] = []
        self.halfway, self.go = Event(), Event()
        self.running = self.most_running = 0
        if let_go:
            self.go.set()

    def __call__(self, config: BaseConfig, progress: Callable[[str, int, int], None]):
        self.calls.append(config.path)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            progress("reading the weights", 1, 4)
            self.halfway.set()
            assert self.go.wait(20)
            progress("reading the weights", 4, 4)
            if config.path == "three times three":
                raise UnsupportedModelError("there is no such base")
            base = tiny_base(build("llama"))
            self.models.append(weakref.ref(base.model))
            return base
        finally:
            self.running -= 1


def until(condition: Callable[[], bool]) -> None:
    end = monotonic() + 20
    while not condition():
        assert monotonic() < end
        sleep(0.01)


def test_all_who_ask_at_once_share_one_load():
    loader = Loader(let_go=False)
    bases = LoadedBases(load=loader)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(bases.engine, ONE) for _ in range(3)]
        bases.begin(ONE, "page")
        assert loader.halfway.wait(20)
        loader.go.set()
        engines = {id(future.result()) for future in asked}
    assert loader.calls == ["one"]
    assert engines == {id(bases.find(ONE).engine)}
    assert bases.find(ONE).seconds > 0
    assert bases.load(ONE) is None


def test_a_load_says_how_far_it_is():
    loader = Loader(let_go=False)
    bases = LoadedBases(load=loader)
    bases.begin(ONE, "page")
    assert loader.halfway.wait(20)
    load = bases.load(ONE)
    assert (load.phase, load.share, load.error) == ("reading the weights", 0.25, None)
    loader.go.set()
    until(lambda: bases.find(ONE) is not None)
    assert load.share == 1.0


def test_a_cancelled_load_ends_and_can_be_started_again():
    loader = Loader(let_go=False)
    bases = LoadedBases(load=loader)
    bases.begin(ONE, "page")
    assert loader.halfway.wait(20)
    load = bases.load(ONE)
    assert bases.cancel(ONE, "page")
    loader.go.set()
    assert isinstance(load.future.exception(20), LoadCancelled)
    assert bases.load(ONE) is None
    assert bases.find(ONE) is None
    assert not loader.models
    bases.begin(ONE, "page")
    until(lambda: bases.find(ONE) is not None)
    assert len(loader.models) == 1


@pytest.mark.parametrize("other", ["another page", "a caller"])
def test_a_load_that_others_want_goes_on(other):
    loader = Loader(let_go=False)
    bases = LoadedBases(load=loader)
    bases.begin(ONE, "page")
    with ThreadPoolExecutor(1) as pool:
        if other == "a caller":
            pool.submit(bases.engine, ONE)
            until(lambda: len(bases.load(ONE)._seen) == 2)
        else:
            bases.begin(ONE, other)
        assert not bases.cancel(ONE, "page")
        assert not bases.load(ONE).is_wanted_by("page")
        loader.go.set()
    until(lambda: bases.find(ONE) is not None)


def test_a_page_that_is_gone_does_not_keep_a_load_alive():
    loader = Loader(let_go=False)
    bases = LoadedBases(load=loader)
    bases.begin(ONE, "page")
    bases.load(ONE).want("closed tab", until=monotonic() - 1)
    assert bases.cancel(ONE, "page")
    loader.go.set()


def test_a_failure_is_shown_raised_and_tried_again():
    loader = Loader()
    bases = LoadedBases(load=loader)
    broken = BaseConfig(path="three times three")
    bases.begin(broken, "page")
    until(lambda: bases.load(broken).error is not None)
    assert "no such base" in str(bases.load(broken).error)
    assert bases.load(broken).is_wanted_by("page")
    with pytest.raises(UnsupportedModelError, match="no such base"):
        bases.engine(broken)
    assert loader.calls == ["three times three"] * 2


def test_the_least_recently_used_base_leaves_before_a_third_is_loaded():
    there = []

    class Counting(Loader):
        def __call__(self, config, progress):
            there.append([ref() is not None for ref in self.models])
            return super().__call__(config, progress)

    loader = Counting()
    bases = LoadedBases(most=2, load=loader)
    bases.engine(ONE)
    bases.engine(TWO)
    bases.engine(ONE)
    bases.engine(THREE)
    assert list(bases.everything()) == [ONE, THREE]
    # When the third load began, the second model was gone from memory and the first was there.
    assert there[-1] == [True, False]


def test_an_unloaded_base_leaves_the_memory():
    loader = Loader()
    bases = LoadedBases(load=loader)
    bases.engine(ONE)
    assert loader.models[0]() is not None
    bases.unload(ONE)
    assert loader.models[0]() is None
    assert not bases.everything()


def test_loads_run_one_after_the_other():
    loader = Loader(let_go=False)
    bases = LoadedBases(load=loader)
    for config in (ONE, TWO):
        bases.begin(config, "page")
    assert loader.halfway.wait(20)
    waiting = [c for c in (ONE, TWO) if bases.load(c).phase.startswith("waiting")]
    assert len(waiting) == 1
    loader.go.set()
    until(lambda: len(bases.everything()) == 2)
    assert loader.most_running == 1
