"""What was computed last of a run, for the tables of a page that are made from the same numbers."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from csreft_core.analysis.subject import Subject
from csreft_core.inference.engine import Engine
from csreft_core.reft.adapter import CSReFT

T = TypeVar("T")


class Latest(Generic[T]):
    """Keeps what was asked for last, for each loaded base and adapter; whoever gets it only reads.

    Args:
        most: How many values of a base and an adapter.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: WeakKeyDictionary[Engine, WeakKeyDictionary[CSReFT, dict[Hashable, T]]]
        self._kept = WeakKeyDictionary()

    def of(self, subject: Subject, key: Hashable, compute: Callable[[], T]) -> T:
        """The value of a key, computed if it is not among the latest.

        Args:
            subject: The opened run.
            key: All that the value depends on, beside the run.
            compute: Gives the value.
        """
        of_base = self._kept.setdefault(subject.engine, WeakKeyDictionary())
        latest = of_base.setdefault(subject.adapter, {})
        # An adapter that was changed in place gives other values.
        versions = tuple(parameter._version for parameter in subject.adapter.parameters())
        whole = (subject.template, subject.config.train.max_length, versions, key)
        value = latest.pop(whole, None)
        if value is None:
            value = compute()
        latest[whole] = value
        for oldest in list(latest)[: -self._most]:
            latest.pop(oldest, None)
        return value
