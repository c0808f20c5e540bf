"""CS-ReFT: train, route and inspect gated low-rank edits of a frozen language model.

The names of `__all__` are what a notebook needs; everything else is imported from its room. Each
is loaded when it is first asked for: the package alone loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csreft_core.analysis.subject import open_subject
    from csreft_core.attachment.attach import attach
    from csreft_core.base.load import load_base
    from csreft_core.config import BaseConfig, Config, preset, with_overrides
    from csreft_core.inference.engine import Engine
    from csreft_core.reft.adapter import load_adapter
    from csreft_core.runs.all_runs import create_run, open_run
    from csreft_core.skills.skill_set import read_skills
    from csreft_core.training.loop import train

__version__ = "0.1.0"

__all__ = [
    "BaseConfig",
    "Config",
    "Engine",
    "attach",
    "create_run",
    "load_adapter",
    "load_base",
    "open_run",
    "open_subject",
    "preset",
    "read_skills",
    "train",
    "with_overrides",
]

_ROOMS = {
    "analysis.subject": ("open_subject",),
    "attachment.attach": ("attach",),
    "base.load": ("load_base",),
    "config": ("BaseConfig", "Config", "preset", "with_overrides"),
    "inference.engine": ("Engine",),
    "reft.adapter": ("load_adapter",),
    "runs.all_runs": ("create_run", "open_run"),
    "skills.skill_set": ("read_skills",),
    "training.loop": ("train",),
}
_HOMES = {name: f"{__name__}.{room}" for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
