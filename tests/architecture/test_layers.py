"""The layer rules hold, and the probes that check them can fail."""

import itertools
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

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


def test_each_violation_breaks_its_contract(copy_of_the_package):
    planted = {
        "runs/run.py": ("import streamlit", "Only csreft_core.app knows Streamlit"),
        "charts/theme.py": ("import torch", "Charts see tables, not tensors"),
        "reft/subspaces.py": ("import pandas", "Numerics know no tables and no pages"),
    }
    for module, (line, _) in planted.items():
        plant(copy_of_the_package, module, line)
    result = _lint_imports(copy_of_the_package)
    assert result.returncode == 1, result.stdout + result.stderr
    for _, contract in planted.values():
        assert f"{contract} BROKEN" in result.stdout


def test_a_module_outside_the_rooms_is_seen(copy_of_the_package):
    plant(copy_of_the_package, "extra.py", "")
    result = _lint_imports(copy_of_the_package)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Rooms, top to bottom BROKEN" in result.stdout


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


def test_an_import_from_above_is_seen_in_every_room_and_a_cycle_in_every_package(
    copy_of_the_package,
):
    from_above, cycles = _plant_imports_from_above(copy_of_the_package), []
    package = copy_of_the_package / "csreft_core"
    for init in sorted(package.rglob("__init__.py")):
        siblings = [p.stem for p in sorted(init.parent.glob("*.py")) if p != init]
        if len(siblings) < 2 or init.parent == package:
            continue
        name = ".".join(init.parent.relative_to(copy_of_the_package).parts)
        cycles.append(name)
        one, other = siblings[:2]
        folder = init.parent.relative_to(package)
        plant(copy_of_the_package, f"{folder}/{one}.py", f"import {name}.{other}")
        plant(copy_of_the_package, f"{folder}/{other}.py", f"import {name}.{one}")
    said = " ".join(_lint_imports(copy_of_the_package).stdout.split())
    assert len(from_above) >= 14
    assert {room for room, words in from_above.items() if words not in said} == set()
    assert len(cycles) >= 30
    assert {p for p in cycles if f"No cycles are allowed in {p}." not in said} == set()


def _plant_imports_from_above(folder: Path) -> dict[str, str]:
    """Each room imports the one above it; gives what the contract says of each."""
    planted = {}
    for above, room in itertools.pairwise(_rooms()[1:]):
        planted[room] = f"csreft_core.{room} is not allowed to import csreft_core.{above}"
        module = room if (ROOT / "csreft_core" / f"{room}.py").exists() else f"{room}/__init__"
        plant(folder, f"{module}.py", f"import csreft_core.{above}")
    return planted


def _loaded_after(*imports: str, suspects: str) -> list[set[str]]:
    """The suspects that a fresh interpreter has loaded after each of some imports, in turn."""
    code = ["import sys"]
    for line in imports:
        code += [line, f"print(*(set({suspects.split()!r}) & set(sys.modules)))"]
    result = subprocess.run(
        [sys.executable, "-c", "\n".join(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=_environment(),
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return [set(line.split()) for line in result.stdout.split("\n")[: len(imports)]]


def _import_all(package: str) -> str:
    return (
        f"import pkgutil, importlib, {package} as package\n"
        f"for module in pkgutil.walk_packages(package.__path__, '{package}.'):\n"
        "    importlib.import_module(module.name)"
    )


def test_package_config_and_charts_load_no_torch():
    """Plotly, which the charts do load, shows that the probe sees what there is."""
    package, config, charts = _loaded_after(
        "import csreft_core",
        "import csreft_core.config",
        _import_all("csreft_core.charts"),
        suspects="torch transformers streamlit pandas plotly pydantic",
    )
    assert package == set()
    assert config == {"pydantic"}
    assert {"pandas", "plotly"} <= charts <= {"pandas", "plotly", "pydantic"}


def test_numerics_load_no_tables_a_training_no_other_methods_and_shown_code_no_page():
    """peft brings bitsandbytes and torch's compiler, a third of the time of the import."""
    numerics, training, shown_code = _loaded_after(
        "import csreft_core.reft.subspaces, csreft_core.reft.router, csreft_core.reft.positions",
        "import csreft_core.training.loop",
        "import csreft_core.app.figures.shown_code",
        suspects="torch transformers streamlit pandas plotly peft bitsandbytes sklearn",
    )
    assert numerics == {"torch"}
    assert {"torch", "transformers"} <= training
    assert training & {"peft", "bitsandbytes", "sklearn", "streamlit"} == set()
    assert "streamlit" not in shown_code
