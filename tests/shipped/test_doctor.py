"""`doctor`: all is well here, and each fault is found and comes with its remedy."""

import json
import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from csreft_core.cli import main
from csreft_core.config import ASSETS
from csreft_core.shipped import doctor

NAMES = [
    "Python",
    *doctor.LIBRARIES,
    "CPU",
    "memory",
    "CUDA",
    "bitsandbytes",
    "pocket base",
    "runs folder",
    "disk",
]


def broken(root: Path, assets: Path = ASSETS) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.run_checks(assets, root) if not check.ok}


@pytest.mark.fast
def test_this_installation_is_well(tmp_runs, capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert out.endswith("All is well.\n")
    assert str(tmp_runs) in out
    assert list(tmp_runs.iterdir()) == []


@pytest.mark.usefixtures("tmp_runs")
def test_json_has_every_check(capsys):
    assert main(["doctor", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ok"] is True
    assert [check["name"] for check in result["checks"]] == NAMES
    assert all(check["ok"] and check["found"] for check in result["checks"])


@pytest.mark.usefixtures("tmp_runs")
def test_a_fault_gives_code_1_and_the_remedy(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "PYTHON", (99, 0))
    assert main(["doctor"]) == 1
    assert "-> install Python 99.0" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_a_library_that_is_missing_or_too_new(tmp_runs, monkeypatch):
    def version(name: str) -> str:
        if name == "accelerate":
            raise PackageNotFoundError(name)
        return {"transformers": "6.0.1"}.get(name, "1.0+cpu" if name != "safetensors" else "0.8.0")

    monkeypatch.setattr(doctor, "version", version)
    found = broken(tmp_runs)
    assert set(found) == {"accelerate", "transformers"}
    assert found["accelerate"].found == "not installed"
    assert all("pip install -r requirements.lock" in check.remedy for check in found.values())


def test_an_installed_package_may_lack_the_app(tmp_runs, monkeypatch):
    def version(name: str) -> str:
        if name in ("streamlit", "accelerate"):
            raise PackageNotFoundError(name)
        return "0.8.0" if name == "safetensors" else "1.0"

    monkeypatch.setattr(doctor, "version", version)
    monkeypatch.setattr(doctor, "INSTALLED", True)
    streamlit = next(c for c in doctor.run_checks(ASSETS, tmp_runs) if c.name == "streamlit")
    assert streamlit.ok
    assert "csreft[app]" in streamlit.found
    assert set(broken(tmp_runs)) == {"accelerate"}


@pytest.mark.parametrize("fault", ["missing", "truncated", "changed", "no card"])
def test_a_pocket_base_that_is_not_the_shipped_one(tmp_path, tmp_runs, fault):
    folder = tmp_path / "assets" / "pocket"
    shutil.copytree(ASSETS / "pocket", folder)
    assert broken(tmp_runs, tmp_path / "assets") == {}
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    if fault == "missing":
        shutil.rmtree(folder)
    elif fault == "truncated":
        weights.write_bytes(content[:5000])
    elif fault == "changed":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        (folder / "README.md").unlink()
    found = broken(tmp_runs, tmp_path / "assets")
    assert set(found) == {"pocket base"}
    assert "build-pocket" in found["pocket base"].remedy


def test_a_runs_folder_that_takes_no_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "CSREFT_RUNS" in broken(tmp_path / "file")["runs folder"].remedy
    assert broken(tmp_path / "not" / "yet" / "there") == {}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_bitsandbytes_is_tried_and_not_only_looked_for(tmp_runs, monkeypatch):
    functional = pytest.importorskip("bitsandbytes.functional")
    assert "bitsandbytes" not in broken(tmp_runs)
    quantize = functional.quantize_4bit
    monkeypatch.setattr(functional, "quantize_4bit", lambda numbers: quantize(-numbers))
    assert "wrong numbers" in broken(tmp_runs)["bitsandbytes"].found

    def fails(numbers):
        raise RuntimeError(f"no kernel for {len(numbers)}")

    monkeypatch.setattr(functional, "quantize_4bit", fails)
    found = broken(tmp_runs)["bitsandbytes"]
    assert "fails (no kernel for 64)" in found.found
    assert found.remedy


def test_without_bitsandbytes_nothing_is_wrong(tmp_runs, monkeypatch):
    version = doctor.version

    def without(name: str) -> str:
        if name == "bitsandbytes":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor, "version", without)
    checks = {check.name: check for check in doctor.run_checks(root=tmp_runs)}
    assert checks["bitsandbytes"].ok
    assert "not available" in checks["bitsandbytes"].found


def test_a_full_disk_and_a_full_memory(tmp_runs, monkeypatch):
    monkeypatch.setattr(doctor, "DISK_BYTES", 10**18)
    monkeypatch.setattr(doctor, "MEMORY_BYTES", 10**18)
    found = broken(tmp_runs)
    assert set(found) == {"disk", "memory"}
    assert "delete old runs" in found["disk"].remedy
