"""The lock files hold what the requirements ask for, and the README's commands install them."""

import re
import tomllib
from importlib.metadata import distribution, distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.repository import ROOT

_SOURCES = ("requirements.txt", "requirements-dev.txt")
_LOCKS = {"requirements.lock": _SOURCES[:1], "requirements-dev.lock": _SOURCES}
_TORCH = "torch==2.13.0"


def _asked(source: str) -> dict[str, Requirement]:
    lines = (ROOT / source).read_text(encoding="utf-8").splitlines()
    texts = [text for line in lines if (text := line.partition("#")[0].strip())]
    found = [Requirement(text) for text in texts if not text.startswith("-r")]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def _locked(lock: str) -> dict[str, list[tuple[Requirement, int]]]:
    """Name -> the pinned requirement for each kind of machine, and how many hashes it has."""
    text = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, list[tuple[Requirement, int]]] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        pinned, *hashes = re.split(r"\s+--hash=", line.strip())
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes), pinned
        requirement = Requirement(pinned)
        found.setdefault(requirement.name, []).append((requirement, len(hashes)))
    return found


def _version(requirement: Requirement) -> str:
    (pin,) = requirement.specifier
    assert pin.operator == "==", f"{requirement} is not pinned"
    return pin.version


@pytest.mark.parametrize("lock", _LOCKS)
def test_a_lock_pins_everything_that_is_asked_for_inside_its_range(lock):
    locked = _locked(lock)
    for source in _LOCKS[lock]:
        for name, asked in _asked(source).items():
            if name == "torch":
                continue
            assert name in locked, f"{lock} lacks {name}; run .ci/lock"
            for pinned, _ in locked[name]:
                assert asked.specifier.contains(_version(pinned)), f"{pinned}; run .ci/lock"


@pytest.mark.parametrize("lock", _LOCKS)
def test_every_locked_package_has_hashes(lock):
    assert not [name for name, pins in _locked(lock).items() if not all(n for _, n in pins)]


@pytest.mark.parametrize("lock", _LOCKS)
def test_a_lock_works_on_three_systems_and_leaves_the_build_of_torch_to_the_user(lock):
    locked = _locked(lock)
    assert not [name for name in locked if re.fullmatch(r"torch|triton|(cuda|nvidia)-.*", name)]
    for system in ("linux", "darwin", "win32"):
        machine = {"sys_platform": system, "python_full_version": "3.11.7"}
        for name in ("transformers", "streamlit", "numpy"):
            fitting = [p for p, _ in locked[name] if not p.marker or p.marker.evaluate(machine)]
            assert len(fitting) == 1, f"{name} on {system}"


def test_nothing_in_the_users_lock_asks_for_a_package_with_an_extra():
    """pip 23.2 looks for the newest ``name[extra]``, whatever the lock says, and fails."""
    here = {canonicalize_name(found.name) for found in distributions()}
    asked = [
        f"{name} asks {needed}"
        for name in _locked("requirements.lock").keys() & here
        for needed in map(Requirement, distribution(name).requires or [])
        if needed.extras and (not needed.marker or needed.marker.evaluate({"extra": ""}))
    ]
    assert not asked, "the README's commands need --no-deps then"


def test_both_locks_agree():
    ours, developers = (
        {name: [_version(pinned) for pinned, _ in pins] for name, pins in _locked(lock).items()}
        for lock in _LOCKS
    )
    assert ours.items() <= developers.items()


@pytest.mark.parametrize("page", ["README.md", "docs/install.md"])
def test_the_commands_of_the_texts_install_the_lock_after_the_pinned_torch(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    commands = re.findall(r"^    .*-m venv .*$", text, flags=re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        first, second = re.findall(r"pip install (?:-r )?(\S+) &&", command)
        assert (first, second) == (_TORCH, "requirements.lock")
    assert str(_asked("requirements.txt")["torch"]) == _TORCH


def test_the_package_asks_for_what_the_requirements_say():
    """torch alone is freer: a pin would replace that of a researcher's environment."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *extras["app"], *extras["dev"]]
    packaged = {r.name.lower(): r for r in map(Requirement, texts) if r.name != project["name"]}
    listed = {r.name.lower(): r for source in _SOURCES for r in _asked(source).values()}
    assert packaged.pop("torch").specifier.contains(_version(listed.pop("torch")))
    assert packaged == listed
