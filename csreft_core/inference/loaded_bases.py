"""A few bases in memory, shared by all who ask: each is loaded once, in a thread of its own.

A load says how far it is and can be cancelled; it may fetch the base before. Thread-safe; knows no
pages.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from math import inf
from threading import Lock, Thread
from uuid import uuid4

from csreft_core.attachment.passes import Request
from csreft_core.base.fetch import fetch as fetch_base
from csreft_core.base.load import Base, load_base
from csreft_core.base.memory.exhausted import free_memory
from csreft_core.base.speed import Speed, measure_speed
from csreft_core.config import BaseConfig, known_bases
from csreft_core.inference.engine import Engine

_FORGOTTEN_S = 10.0

LoadBase = Callable[..., Base]


class LoadCancelled(Exception):
    """Nobody wants this load any more; only its own thread and those who wait for it see this."""


@dataclass(frozen=True)
class LoadedBase:
    """A base in memory and how long it took to come there."""

    engine: Engine
    seconds: float

    @cached_property
    def speed(self) -> Speed:
        """Measured when it is first asked for."""
        with self.engine.attachment.calling(Request(None)):
            return measure_speed(self.engine.base.model)


class Load:
    """A load that waits for its turn, runs, or has failed.

    Attributes:
        config: What is loaded.
        fetches: Whether it may fetch the base first.
        phase: What it does now, in words.
        share: How much of this phase is done, 0 to 1; None where it cannot be known.
        future: The result, for those who wait.
        cancelled: It ends at its next step, or has.
    """

    def __init__(self, config: BaseConfig, *, fetches: bool = False) -> None:
        self.config = config
        self.fetches = fetches
        self.phase = "waiting for another load to end"
        self.share: float | None = None
        self.future: Future[LoadedBase] = Future()
        self.cancelled = False
        self._seen: dict[str, float] = {}

    @property
    def error(self) -> BaseException | None:
        """Why it failed; None while it runs."""
        return self.future.exception() if self.future.done() else None

    def is_wanted_by(self, who: str) -> bool:
        """Whether someone has asked for it and not taken it back."""
        return who in self._seen

    def want(self, who: str, until: float | None = None) -> None:
        """Someone wants it; a wish that is not said again is forgotten after ten seconds."""
        self._seen[who] = time.monotonic() + _FORGOTTEN_S if until is None else until

    def leave(self, who: str) -> None:
        """Someone does not want it any more."""
        self._seen.pop(who, None)

    def is_wanted(self) -> bool:
        """Whether anybody wants it."""
        now = time.monotonic()
        return any(until > now for until in tuple(self._seen.values()))

    def progress(self, phase: str, done: int, total: int) -> None:
        """Take note of how far it is; raises `LoadCancelled` where nobody wants it."""
        if self.cancelled:
            raise LoadCancelled
        self.phase, self.share = phase, done / total if total else None


class LoadedBases:
    """Bases by their settings; the least recently used leaves first.

    None is closed when it leaves: somebody may be in the middle of an answer. Its memory is free
    when the last answer is done.

    Args:
        most: How many stay.
        load: `load_base`, or another function of its kind.
    """

    def __init__(self, most: int = 2, load: LoadBase = load_base) -> None:
        self._most = most
        self._load_base = load
        self._lock, self._turn = Lock(), Lock()
        self._bases: OrderedDict[BaseConfig, LoadedBase] = OrderedDict()
        self._loads: dict[BaseConfig, Load] = {}

    def engine(self, config: BaseConfig) -> Engine:
        """The engine of a base, loaded now if it is not there; raises what the load raises."""
        caller = str(uuid4())
        with self._lock:
            loaded = self._touch(config)
            if loaded is not None:
                return loaded.engine
            load = self._begin(config)
            load.want(caller, until=inf)
        try:
            return load.future.result().engine
        finally:
            load.leave(caller)

    def begin(self, config: BaseConfig, who: str, *, fetch: bool = False) -> None:
        """Load in the background what is not there yet; `who` wants it.

        Args:
            config: Which base.
            who: Wants it.
            fetch: Whether it may be fetched first (`base.fetch`).
        """
        with self._lock:
            if self._touch(config) is None:
                self._begin(config, fetch=fetch).want(who)

    def cancel(self, config: BaseConfig, who: str) -> bool:
        """`who` does not want the load any more; False where others do, and it goes on."""
        with self._lock:
            load = self._loads.get(config)
            if load is None:
                return True
            load.leave(who)
            load.cancelled = load.cancelled or not load.is_wanted()
            return load.cancelled

    def load(self, config: BaseConfig) -> Load | None:
        """The load of a base that runs or has failed."""
        return self._loads.get(config)

    def find(self, config: BaseConfig) -> LoadedBase | None:
        """The base if it is in memory."""
        return self._bases.get(config)

    def everything(self) -> dict[BaseConfig, LoadedBase]:
        """Every base in memory, the least recently used first."""
        with self._lock:
            return dict(self._bases)

    def unload(self, config: BaseConfig) -> None:
        """Let go of a base."""
        with self._lock:
            self._bases.pop(config, None)
        free_memory()

    def _touch(self, config: BaseConfig) -> LoadedBase | None:
        if config in self._bases:
            self._bases.move_to_end(config)
        return self._bases.get(config)

    def _begin(self, config: BaseConfig, *, fetch: bool = False) -> Load:
        load = self._loads.get(config)
        if load is None or load.future.done() or load.cancelled:
            load = self._loads[config] = Load(config, fetches=fetch)
            Thread(target=self._run, args=(load,), name=f"load {config.path}", daemon=True).start()
        return load

    def _run(self, load: Load) -> None:
        try:
            # One at a time: two at once would each count the same free memory.
            with self._turn:
                load.progress("starting", 0, 0)
                if load.fetches:
                    fetch_base(known_bases()[load.config.path], progress=load.progress)
                self._make_room()
                start = time.perf_counter()
                base = self._load_base(load.config, progress=load.progress)
                loaded = LoadedBase(Engine(base), time.perf_counter() - start)
        # Of any kind: whoever waits would wait for ever.
        except BaseException as error:  # noqa: BLE001 - raised again by those who wait
            # Without its traceback, which would keep what was loaded so far in memory.
            self._end(load, forget=load.cancelled)
            free_memory()
            load.future.set_exception(error.with_traceback(None))
            return
        with self._lock:
            self._bases[load.config] = loaded
        self._end(load, forget=True)
        load.future.set_result(loaded)

    def _end(self, load: Load, *, forget: bool) -> None:
        """A failure stays to be shown; what is in memory or was cancelled needs no load."""
        with self._lock:
            if forget and self._loads.get(load.config) is load:
                del self._loads[load.config]

    def _make_room(self) -> None:
        with self._lock:
            full = len(self._bases) >= self._most
            while len(self._bases) >= self._most:
                self._bases.popitem(last=False)
        if full:
            free_memory()
