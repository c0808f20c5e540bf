"""A comparison of methods: a folder that is the truth, like a run folder.

    comparison.json         the plan: methods with their settings, seeds, steps, machine
    cells/<method>-<seed>/  the run of one method from one seed, and
        result.json         what was measured on it, once all is; or why it failed

Every file is replaced in one step. Nothing here trains. A folder without the runs, with these two
kinds of files alone, can be read all the same.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as strict_dataclass

from csreft_core.config import ASSETS, Config
from csreft_core.errors import RunError
from csreft_core.files import check_plain, finite, storage_errors, write_atomic
from csreft_core.methods.presets import method_name
from csreft_core.reft.base_record import differences

CellState = Literal["finished", "failed", "missing"]

UNTRAINED, JOINT = "untrained", "joint"
STARTS = (UNTRAINED, JOINT)
"""Where a training on one skill alone begins: fresh parameters, or those trained on all skills."""

SHIPPED_COMPARISONS = ASSETS / "comparisons"
"""The comparisons that come with the program."""
_MOST_BYTES = 50_000_000
_LABEL = re.compile(r"[a-z0-9][a-z0-9_.+]{0,39}")


@strict_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Variant:
    """One method with its settings; `n_skills` is how many of the data's skills it learns."""

    config: Config
    n_skills: int | None = None


@strict_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Plan:
    """What a comparison is made of.

    Attributes:
        name: Of the comparison.
        variants: Label -> method, in the order in which tables show them.
        seeds: A cell for each method and each of them.
        single_steps: Steps of a training on one skill alone (`I_train`).
        sequential_steps: Steps on each skill when they come one after another.
        per_skill: Most test prompts of a skill and split; None takes all.
        budget: Trained parameters that the sizes were chosen for, if they were.
        base_fingerprint: Of the base.
        command: Makes it again.
        machine: Where it ran.
        date: When it was begun, as YYYY-MM-DD.
        versions: Of the libraries.
    """

    name: str
    variants: dict[str, Variant]
    seeds: tuple[int, ...]
    single_steps: int
    sequential_steps: int
    per_skill: int | None
    budget: int | None
    base_fingerprint: str
    command: str
    machine: str
    date: str
    versions: dict[str, str]

    @property
    def methods(self) -> tuple[str, ...]:
        """The labels."""
        return tuple(self.variants)

    @property
    def first(self) -> Config:
        """Settings of the first method; base and data are the same for all."""
        return next(iter(self.variants.values())).config


_PLAN = TypeAdapter(Plan)
# What may differ when the same comparison is gone on with.
_CIRCUMSTANCES = {"command", "machine", "date", "versions", "name"}


@dataclass(frozen=True)
class Comparison:
    """A comparison's folder. Holds no state: every call reads or writes the folder."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def plan(self) -> Plan:
        """Read the plan.

        Raises:
            RunError: it is missing or broken.
        """
        path = self.path / "comparison.json"
        try:
            check_plain(path, _MOST_BYTES)
            return _PLAN.validate_json(path.read_bytes())
        except OSError:
            raise RunError(
                f"{self.path}: is no comparison, it has no comparison.json; make one with: "
                f"compare --out {self.path}"
            ) from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise RunError(
                f"{path}: is broken ({where}: {first['msg']}); restore it or compare again"
            ) from None

    def cells(self) -> list[tuple[str, int]]:
        """Method and seed of every cell; all methods of a seed stand together."""
        plan = self.plan()
        return [(method, seed) for seed in plan.seeds for method in plan.methods]

    def cell_path(self, method: str, seed: int) -> Path:
        """The folder of a cell."""
        return self.path / "cells" / f"{method}-{seed}"

    def lock(self, method: str, seed: int) -> FileLock:
        """Held by the process that works on a cell."""
        return FileLock(self.path / "cells" / f".{method}-{seed}.lock")

    def result(self, method: str, seed: int) -> dict[str, Any] | None:
        """What was measured, or None if the cell is not done.

        Raises:
            RunError: the file is broken.
        """
        path = self.cell_path(method, seed) / "result.json"
        try:
            check_plain(path, _MOST_BYTES)
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError):
            content = None
        if not isinstance(content, dict) or content.get("state") not in ("finished", "failed"):
            raise RunError(f"{path}: is broken; delete it, and the cell is measured again")
        return content

    def state(self, method: str, seed: int) -> CellState:
        """How a cell stands."""
        result = self.result(method, seed)
        return "missing" if result is None else result["state"]

    def write_result(self, method: str, seed: int, result: dict[str, Any]) -> None:
        """Mark a cell as finished or failed; numbers that are not finite become null."""
        folder = self.cell_path(method, seed)
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(finite(result), ensure_ascii=False, allow_nan=False, indent=1)
        write_atomic(folder / "result.json", text + "\n")


def begin(path: Path, plan: Plan) -> Comparison:
    """Make a comparison's folder, or go on with the one that is there.

    Raises:
        RunError: the folder holds another comparison or other files; or a label that cannot name
            a folder.
        StorageError: the disk refuses.
    """
    bad = [label for label in plan.variants if not _LABEL.fullmatch(label)]
    if bad:
        raise RunError(f"{bad[0]!r} cannot name a method; use a-z, 0-9, '_', '.' and '+'")
    comparison = Comparison(path)
    if (path / "comparison.json").is_file():
        earlier = comparison.plan()
        before, now = (_PLAN.dump_python(a, mode="json") for a in (earlier, plan))
        apart = {*_CIRCUMSTANCES, "base_fingerprint"}
        different = [n for n in now if n not in apart and before[n] != now[n]]
        different += differences(earlier.base_fingerprint, plan.base_fingerprint)
        if different:
            raise RunError(
                f"{path}: holds a comparison with other {', '.join(different)}; choose another "
                "folder, or give what it was begun with"
            )
        return comparison
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(f"{path}: has other files in it; choose a new folder")
    with storage_errors(path):
        (path / "cells").mkdir(parents=True)
        write_atomic(path / "comparison.json", _PLAN.dump_json(plan, indent=1) + b"\n")
    return comparison


def open_comparison(path: Path) -> Comparison:
    """The comparison in a folder.

    Raises:
        RunError: there is none, or it is broken.
    """
    comparison = Comparison(path)
    comparison.plan()
    return comparison


def list_comparisons(root: Path) -> list[Comparison]:
    """The comparisons in a folder, by name; broken ones are left out."""
    comparisons = []
    for path in sorted(root.glob("*/comparison.json")):
        try:
            comparisons.append(open_comparison(path.parent))
        except RunError:
            continue
    return comparisons


def shipped_comparisons() -> list[Comparison]:
    """Those that come with the program, the main one first."""
    return sorted(
        list_comparisons(SHIPPED_COMPARISONS), key=lambda comparison: comparison.name != "main"
    )


def start_of(row: dict[str, Any]) -> str:
    """From where a row of a result's `interference` was trained; once there was one start only."""
    return row.get("start", UNTRAINED)


def missing_starts(result: dict[str, Any]) -> list[str]:
    """The starts from which a finished cell does not know loss and exact match."""
    present = {start_of(row) for row in result["interference"] if "exact_change" in row}
    return [start for start in STARTS if start not in present]


def label_name(label: str) -> str:
    """The name of a method or a variant for people."""
    return method_name(label)
