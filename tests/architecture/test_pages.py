"""Pages stay thin: a script of at most 60 lines, without a function or a class."""

import ast

import pytest

from tests.repository import ROOT

pytestmark = pytest.mark.fast

LONGEST = 60


def _faults(source: str) -> list[str]:
    faults = []
    if source.count("\n") > LONGEST:
        faults.append(f"has {source.count(chr(10))} lines, at most {LONGEST} are allowed")
    forbidden = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    faults += [
        f"line {node.lineno} defines {node.name}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, forbidden)
    ]
    return faults


def test_pages_are_thin_scripts():
    pages = [ROOT / "app.py", *sorted((ROOT / "pages").glob("*.py"))]
    assert len(pages) > 1, "no page found"
    faults = {page.name: _faults(page.read_text(encoding="utf-8")) for page in pages}
    assert not {name: found for name, found in faults.items() if found}


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("def draw():\n    pass\n", "line 1 defines draw"),
        ("class Page:\n    pass\n", "line 1 defines Page"),
        ("if True:\n    async def load():\n        pass\n", "line 2 defines load"),
        ("x = 1\n" * 61, "has 61 lines, at most 60 are allowed"),
    ],
)
def test_a_thick_page_is_seen(source, fault):
    assert _faults(source) == [fault]
    assert _faults("x = 1\n" * 60) == []
