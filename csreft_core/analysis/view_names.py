"""What the command line calls the views, and the module of tables behind each name."""

from collections.abc import Callable
from typing import Any

INSPECTED = {
    "gates": "gates.tables",
    "words": "gates.words",
    "geometry": "geometry.tables",
    "states": "states.tables",
    "interference": "interference.tables",
    "prompt": "interference.prompt",
    "answers": "answers.tables",
}
"""Views of a run."""

JUDGED = {
    "methods": "methods.tables",
    "claims": "claims.tables",
    "memorisation": "claims.memorisation",
    "parameters": "claims.parameters",
    "paper_tables": "claims.paper_tables",
    "results": "results",
}
"""Views of comparisons and claims."""

_MODULES = {**INSPECTED, **JUDGED}
_MORE = {
    "gates.score_tables": "gates",
    "geometry.training_tables": "geometry",
    "interference.pair_tables": "interference",
    "states.edit_tables": "states",
}
"""Modules with further tables of a view; the view's own module lists and imports them."""

_NAMES = {module: name for name, module in _MODULES.items()} | _MORE


def module_of(view: str) -> str:
    """The whole name of the module that has a view's tables."""
    return f"{__package__}.{_MODULES[view]}"


def view_of(make: Callable[..., Any]) -> str:
    """The name of the view that a table belongs to."""
    return _NAMES[make.__module__.removeprefix(f"{__package__}.")]
