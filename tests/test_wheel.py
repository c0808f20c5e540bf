"""The wheel: it holds all that is shipped, and works where no checkout is."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.repository import ROOT, repository_files

BYTES = 25_000_000
SHIPPED = ("assets", "pages", "app.py", ".streamlit")
END_OF_MISTAKE = "end of the mistake"
WORK = f"""
END_OF_MISTAKE = {END_OF_MISTAKE!r}
import json, sys
from pathlib import Path

from streamlit.testing.v1 import AppTest

import csreft_core
from csreft_core.__main__ import start
from csreft_core.cli import main
from csreft_core.config import INSTALLED, PROJECT
from csreft_core.runs.all_runs import runs_root

sys.argv = ["csreft", "train", "--set", "data.path=no.jsonl", "--out", "wrong"]
assert start() == 2
for stream in (sys.stdout, sys.stderr):
    print(END_OF_MISTAKE, file=stream, flush=True)
assert main(["doctor"]) == 0
assert main(["train", "--set", "train.steps=2", "--out", "first"]) == 0
page = AppTest.from_file(PROJECT / "app.py", default_timeout=120).run()
said = {{
    "package": csreft_core.__file__,
    "installed": INSTALLED,
    "runs": str(runs_root()),
    "exceptions": [e.value for e in page.exception],
    "errors": [e.value for e in page.error],
    "text": " ".join(m.value for m in page.markdown),
    "run": page.session_state["run"],
}}
Path("said.json").write_text(json.dumps(said))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel: requirements-dev.txt")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A folder without the checkout, and an environment in which the unpacked wheel is found."""
    packages, folder = tmp_path_factory.mktemp("packages"), tmp_path_factory.mktemp("elsewhere")
    zipfile.ZipFile(wheel).extractall(packages)
    home = {"XDG_DATA_HOME": str(folder / "data"), "HOME": str(folder)}
    kept = {name: value for name, value in os.environ.items() if name != "CSREFT_RUNS"}
    return folder, {**kept, **home, "PYTHONPATH": str(packages)}


def test_it_holds_every_shipped_file_and_is_small(wheel):
    assert wheel.stat().st_size < BYTES
    with zipfile.ZipFile(wheel) as archive:
        names = {*archive.namelist()}
        for path in repository_files():
            if path.parts[0] in SHIPPED:
                packed = archive.read(f"csreft_core/site/{path.as_posix()}")
                assert packed == (ROOT / path).read_bytes()
        (entry,) = [name for name in names if name.endswith("entry_points.txt")]
        assert b"csreft = csreft_core.__main__:start" in archive.read(entry)
    assert "csreft_core/py.typed" in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "docs"))]


def test_it_is_well_trains_and_opens_its_first_page_without_the_checkout(elsewhere):
    folder, environment = elsewhere
    result = subprocess.run(
        [sys.executable, "-c", WORK],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    # The libraries are loaded by now and have said nothing.
    assert result.stdout.split(END_OF_MISTAKE)[0] == ""
    (mistake,) = result.stderr.split(END_OF_MISTAKE)[0].splitlines()
    assert mistake.startswith("error: ")
    assert not (folder / "wrong").exists()
    said = json.loads((folder / "said.json").read_text())
    assert ROOT not in Path(said["package"]).parents
    assert said["installed"] is True
    assert Path(said["runs"]).is_relative_to(folder / "data")
    assert (said["exceptions"], said["errors"]) == ([], [])
    assert said["run"] == "example:recommended-0"
