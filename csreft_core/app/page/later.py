"""Functions by name, imported when they are called: what computes tables needs torch.

A page that shows what is kept beside a run calls none of them, so it opens in the time that
Streamlit needs.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any


class Later:
    """The functions of a module that is imported when one of them is first called.

    Args:
        module: Its whole name.
    """

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return getattr(import_module(self._module), name)(*args, **kwargs)

        call.__module__, call.__name__ = self._module, name
        return call
