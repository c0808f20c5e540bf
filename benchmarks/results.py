"""What was measured where: tables in Markdown, and the file in `results/` that keeps them."""

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; short rows end in empty cells."""
    filled = ([*row, *[""] * (len(columns) - len(row))] for row in rows)
    lines = [columns, ["---"] * len(columns), *filled]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> dict[str, Any]:
    """What the times depend on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": [round(load, 2) for load in psutil.getloadavg()],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str:
    def git(*arguments: str) -> str:
        process = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return process.stdout.strip()

    changes = git("status", "--porcelain", "--", "csreft_core", "benchmarks/*.py")
    return git("rev-parse", "--short", "HEAD") + (" with changes" if changes else "")


def _report(title: str, parts: Sequence[str], about: dict[str, Any]) -> str:
    """Tables, command, machine and versions."""
    command = f"python -m benchmarks.{Path(sys.argv[0]).stem} {shlex.join(sys.argv[1:])}".strip()
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    facts = [f"- {name}: {_in_words(value)}" for name, value in about.items()]
    head = [f"# {title}, {today}", f"    {command}"]
    return "\n\n".join([*head, *parts, "\n".join([f"- commit: {_commit()}", *facts])]) + "\n"


def _in_words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {entry}" for name, entry in value.items())
    return str(value)


def publish(
    title: str, parts: Sequence[str], about: dict[str, Any], raw: dict[str, Any], name: str | None
) -> None:
    """Print the page of one measurement; under a name, keep it and every single time behind it.

    Args:
        title: Of the page.
        parts: Its tables.
        about: The machine and the versions.
        raw: The times.
        name: Of the dated files in the results folder; None keeps nothing.
    """
    page = _report(title, parts, about)
    print(page)
    if name is not None:
        _save(name, page, raw)


def _save(name: str, page: str, raw: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    text, data = (RESULTS / f"{today}-{name}.{ending}" for ending in ("md", "json"))
    text.write_text(page, encoding="utf-8")
    data.write_text(json.dumps(_round(raw)), encoding="utf-8")


def _round(value: Any) -> Any:
    """Seconds to the microsecond."""
    if isinstance(value, dict):
        return {name: _round(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_round(entry) for entry in value]
    return round(value, 6) if isinstance(value, float) else value
