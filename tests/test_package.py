"""The face of the package: what `import csreft_core` gives."""

import re
from importlib import import_module

import pytest

import csreft_core
from tests.repository import ROOT

pytestmark = pytest.mark.fast

EXAMPLE = re.compile(r"## In Python\n.*?```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("name", csreft_core.__all__)
def test_each_name_is_that_of_its_room(name):
    value = getattr(csreft_core, name)
    assert getattr(import_module(value.__module__), name) is value
    assert name in dir(csreft_core)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'hooking'"):
        csreft_core.hooking  # noqa: B018


def test_the_example_of_the_readme_needs_one_import_of_ours_and_runs(monkeypatch, capsys):
    (code,) = EXAMPLE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len([line for line in code.splitlines() if "csreft_core" in line]) == 1
    monkeypatch.chdir(ROOT)
    exec(code.replace("runs/first", "assets/examples/recommended-0"), {})
    assert "A: dogs" in capsys.readouterr().out
