"""How a run stands: the content of its `status.json`. Writes nothing."""

import time
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as strict_dataclass

from csreft_core.errors import RunError
from csreft_core.files import check_plain
from csreft_core.runs.records import MOST_STEPS, first_fault

State = Literal["queued", "running", "finished", "stopped", "failed", "interrupted"]
STATES: tuple[str, ...] = get_args(State)

_Time = Annotated[float, Field(ge=0, le=9_000_000_000)]
"""Seconds since 1970, to the year 2255; what every calendar can show."""

MOST_BYTES = 2_000_000
"""A config or a status is never larger; a file that is was not written by this program."""


@strict_dataclass(frozen=True, config=ConfigDict(extra="ignore", allow_inf_nan=False))
class Status:
    """How a run stands.

    Attributes:
        state: One of `STATES`.
        step: Optimiser steps that are done.
        total_steps: Steps of the whole run.
        heartbeat: When the trainer last wrote, in seconds since 1970; so are the times below.
        message: A short text for the user; why it failed.
        created: When the run was made.
        started: When the training last began.
        ended: When it ended.
        pid: The process that trains or waits.
    """

    state: State
    step: Annotated[int, Field(ge=0, le=MOST_STEPS)]
    total_steps: Annotated[int, Field(ge=1, le=MOST_STEPS)]
    heartbeat: _Time
    message: str
    created: _Time
    started: _Time | None = None
    ended: _Time | None = None
    pid: Annotated[int, Field(ge=0, lt=2**31)] | None = None


_FORM = TypeAdapter(Status)


def read_status(path: Path) -> Status:
    """The status in a file of a run's folder.

    Raises:
        RunError: it is missing or broken.
    """
    try:
        check_plain(path, MOST_BYTES)
        return _FORM.validate_json(_read(path))
    except (OSError, ValidationError) as error:
        reason = (
            "is missing or unreadable"
            if isinstance(error, OSError)
            else f"is broken ({first_fault(error)})"
        )
        raise RunError(
            f"run {path.parent.name!r}: {path} {reason}; restore it or delete the run"
        ) from None


def as_json(status: Status) -> bytes:
    """The content of the file."""
    return _FORM.dump_json(status, indent=2) + b"\n"


def _read(path: Path) -> bytes:
    """Windows refuses while the file is being replaced: try again."""
    for _ in range(10):
        try:
            return path.read_bytes()
        except PermissionError:
            time.sleep(0.02)
    return path.read_bytes()
