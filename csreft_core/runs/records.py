"""The records of `metrics.jsonl` as the tables want them; anything else is told, not drawn.

The trainer writes them, but a folder can come from anywhere: valid JSON may hold texts in the place
of numbers, times that no calendar has, or evaluations without scores.
"""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from csreft_core.errors import RunError
from csreft_core.files import check_plain

MOST_STEPS = 10**12
# A number is null where it was not finite.
_Number = Annotated[float, Field(strict=True, ge=-1e300, le=1e300)] | None
_Amount = Annotated[float, Field(strict=True, ge=0, le=1e12)] | None
_Step = Annotated[int, Field(strict=True, ge=0, le=MOST_STEPS)]
_Gates = dict[str, dict[str, _Number]] | None

_FORM = ConfigDict(extra="ignore")


@dataclass(config=_FORM)
class _Scores:
    loss: _Number
    exact_match: _Number
    n: _Step


@dataclass(config=_FORM)
class _Any:
    step: _Step = 0
    kind: str | None = None


@dataclass(config=_FORM)
class _StepRecord:
    step: _Step
    loss: _Number = None
    loss_by_skill: dict[str, _Number] = Field(default_factory=dict)
    gates_by_skill: _Gates = None
    gate_entropy: _Number = None
    orthonormality_error: _Number = None
    constraint_error: _Number = None
    overlap: _Number = None
    grad_norm: _Number = None
    lr: _Number = None
    router_lr: _Number = None
    tokens_per_second: _Amount = None
    time_left_s: _Amount = None
    elapsed_s: _Amount = None


@dataclass(config=_FORM)
class _EvalRecord:
    step: _Step
    skills: dict[str, _Scores]
    split: str = "validation"
    gates_by_skill: _Gates = None


_FORMS: dict[Any, TypeAdapter[Any]] = {
    "step": TypeAdapter(_StepRecord),
    "eval": TypeAdapter(_EvalRecord),
}
_OTHER = TypeAdapter(_Any)


def fault_of(record: dict[str, Any]) -> str | None:
    """What is wrong with a record, or None.

    Args:
        record: A line of `metrics.jsonl`.
    """
    kind = record.get("kind")
    form = _FORMS.get(kind, _OTHER) if isinstance(kind, str) else _OTHER
    try:
        form.validate_python(record)
    except ValidationError as error:
        return first_fault(error)
    return None


def first_fault(error: ValidationError) -> str:
    """The first thing that a check found, with the place of it."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where[:80]}: {first['msg']}"


def read_since(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """The records of a run's file after a place in it, and the place to go on from.

    Args:
        path: The `metrics.jsonl` of a run; a missing one has no records.
        offset: In bytes; if the file is cut back since, all records come.

    Raises:
        RunError: it cannot be read, or a whole line is no record.
    """
    try:
        check_plain(path)
        with path.open("rb") as file:
            if offset and not _after_line_end(file, offset):
                offset = 0
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise RunError(
            f"run {path.parent.name!r}: {path} cannot be read ({error.strerror}); restore it or "
            "delete the run"
        ) from None
    whole = data[: data.rfind(b"\n") + 1]
    return [_record(line, path) for line in whole.splitlines()], offset + len(whole)


def _record(line: bytes, path: Path) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    fault = fault_of(record) if isinstance(record, dict) else "no JSON object"
    if fault is not None or not isinstance(record, dict):
        raise RunError(
            f"run {path.parent.name!r}: {path} has a broken line, {line[:40]!r} ({fault}); take "
            "the line out or delete the run"
        )
    return record


def _after_line_end(file: Any, offset: int) -> bool:
    file.seek(offset - 1)
    return file.read(1) == b"\n"
