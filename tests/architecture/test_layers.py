"""The layer rules hold, and the probes that check them can fail."""

import importlib
import itertools
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests import started
from tests.repository import ROOT


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=_environment(),
        timeout=120,
        check=False,
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def copy_of_the_package(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(
        ROOT / "csreft_core",
        tmp_path / "csreft_core",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return tmp_path


def test_the_import_contracts_hold(copy_of_the_package):
    result = _lint_imports(copy_of_the_package)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("extra.py", "", "Rooms, top to bottom"),
        ("runs/run.py", "import streamlit", "Only csreft_core.app knows Streamlit"),
        ("charts/theme.py", "import torch", "Charts see tables, not tensors"),
        ("reft/subspaces.py", "import pandas", "Numerics know no tables and no pages"),
    ],
)
def test_a_violation_breaks_its_contract(copy_of_the_package, module, line, contract):
    plant(copy_of_the_package, module, line)
    result = _lint_imports(copy_of_the_package)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{contract} BROKEN" in result.stdout


def plant(folder: Path, module: str, line: str) -> None:
    """Add a line to a module of a copy, which may be new."""
    path = folder / "csreft_core" / module
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(f"{old}\n{line}\n", encoding="utf-8")


def _rooms() -> list[str]:
    """The rooms from top to bottom, as the contract lists them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (
        c for c in settings["tool"]["importlinter"]["contracts"] if c["type"] == "layers"
    )
    return [room.strip() for layer in contract["layers"] for room in layer.split("|")]


def test_an_import_from_above_is_seen_in_every_room(copy_of_the_package):
    rooms = _rooms()[1:]
    planted = {}
    for above, room in itertools.pairwise(rooms):
        planted[room] = f"csreft_core.{room} is not allowed to import csreft_core.{above}"
        module = room if (ROOT / "csreft_core" / f"{room}.py").exists() else f"{room}/__init__"
        plant(copy_of_the_package, f"{module}.py", f"import csreft_core.{above}")
    said = " ".join(_lint_imports(copy_of_the_package).stdout.split())
    assert len(planted) >= 14
    assert {room for room, words in planted.items() if words not in said} == set()


def test_a_cycle_is_seen_in_every_package(copy_of_the_package):
    package, packages = copy_of_the_package / "csreft_core", []
    for init in sorted(package.rglob("__init__.py")):
        siblings = [p.stem for p in sorted(init.parent.glob("*.py")) if p != init]
        if len(siblings) < 2 or init.parent == package:
            continue
        name = ".".join(init.parent.relative_to(copy_of_the_package).parts)
        packages.append(name)
        one, other = siblings[:2]
        folder = init.parent.relative_to(package)
        plant(copy_of_the_package, f"{folder}/{one}.py", f"import {name}.{other}")
        plant(copy_of_the_package, f"{folder}/{other}.py", f"import {name}.{one}")
    said = " ".join(_lint_imports(copy_of_the_package).stdout.split())
    assert len(packages) >= 30
    assert {p for p in packages if f"No cycles are allowed in {p}." not in said} == set()


def _loaded_after(imports: str, suspects: str) -> set[str]:
    """The suspects that a fresh interpreter has loaded after some imports."""
    code = f"import sys\n{imports}\nprint(*(set({suspects.split()!r}) & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=_environment(),
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def _import_all(package: str) -> str:
    return (
        f"import pkgutil, importlib, {package} as package\n"
        f"for module in pkgutil.walk_packages(package.__path__, '{package}.'):\n"
        "    importlib.import_module(module.name)"
    )


@pytest.mark.parametrize(
    ("imports", "suspects"),
    [
        ("import csreft_core", "torch transformers streamlit pandas plotly pydantic"),
        ("import csreft_core.config", "torch transformers streamlit pandas plotly"),
        (_import_all("csreft_core.charts"), "torch transformers streamlit"),
        ("import csreft_core.app.figures.shown_code", "streamlit"),
        (
            "import csreft_core.reft.subspaces, csreft_core.reft.router, "
            "csreft_core.reft.positions",
            "transformers streamlit pandas plotly",
        ),
    ],
    ids=["package", "config", "charts", "shown code", "numerics"],
)
def test_a_layer_loads_nothing_that_belongs_above_it(imports, suspects):
    assert _loaded_after(imports, suspects) == set()


def say_what_is_loaded(told: Any) -> None:
    importlib.import_module("csreft_core.training.loop")
    told.send(set(sys.modules))


def test_a_training_loads_no_library_that_other_methods_need():
    """peft brings bitsandbytes and torch's compiler, a third of the time of the import."""
    heard, told = started.context.Pipe(duplex=False)
    started.start(say_what_is_loaded, told)
    loaded = heard.recv()
    assert "csreft_core.training.loop" in loaded
    others = {"peft", "bitsandbytes", "sklearn", "streamlit"}
    assert loaded & others == set()


def test_the_load_probe_sees_a_violation():
    assert _loaded_after("import plotly, csreft_core.config", "torch plotly") == {"plotly"}
