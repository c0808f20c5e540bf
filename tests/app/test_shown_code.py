"""What "Data" shows below a figure makes that figure's table: the Python code and the command."""

import io
import shlex
from functools import cache, wraps
from importlib import import_module

import pandas as pd
import plotly.graph_objects as go
import pytest
from pandas.testing import assert_frame_equal

from csreft_core.__main__ import main
from csreft_core.analysis.view_names import INSPECTED, module_of
from csreft_core.app import geometry
from csreft_core.app.gates import panels as router
from csreft_core.app.gates import rows as router_rows
from csreft_core.app.interference import panels as interference
from csreft_core.app.page import kept, widgets
from csreft_core.app.states import panels as states
from csreft_core.inference.engine import Engine
from tests.page_runs import assert_no_bug
from tests.repository import ROOT

# Each page with what its address chooses, and the panels that wait for a click.
PAGES: list[tuple[str, dict[str, str], tuple[str, ...]]] = [
    ("app.py", {}, ()),
    ("pages/Router.py", {"pin": "What is the plural of dog?"}, ()),
    *(
        ("pages/Router.py", {"router-part": router.HELD_OUT, "look": look}, ())
        for look in router_rows.LOOKS
    ),
    *(("pages/Geometry.py", {"geometry-part": part}, ("mixing-panel",)) for part in geometry.PARTS),
    *(("pages/States.py", {"states-part": part}, ()) for part in states.PARTS),
    *(
        ("pages/Interference.py", {"i-part": part, "i-rows": "10"}, ("i-regret", "i-overlap"))
        for part in interference.PARTS
        if part != interference.ONE_SKILL  # its figure needs runs that are trained on request
    ),
    ("pages/Compare.py", {}, ()),
]


@pytest.fixture(autouse=True)
def _in_the_project_with_one_base(monkeypatch):
    monkeypatch.chdir(ROOT)
    load = cache(Engine.load.__func__)
    monkeypatch.setattr(Engine, "load", classmethod(lambda cls, config: load(cls, config)))


@pytest.fixture(autouse=True)
def _each_table_is_computed_once(monkeypatch):
    """Page, code and command share what the same call gives; another call computes anew."""
    kept: dict[tuple, pd.DataFrame] = {}

    def once(make):
        @wraps(make)
        def table(subject, **arguments):
            plain = [(n, tuple(v) if isinstance(v, list) else v) for n, v in arguments.items()]
            plain = sorted((n, v) for n, v in plain if v is not None)
            key = (make.__module__, make.__name__, subject.run.path.resolve(), repr(plain))
            if key not in kept:
                kept[key] = make(subject, **arguments)
            return kept[key].copy()

        return table

    for view in INSPECTED:
        module = import_module(module_of(view))
        for name in module.TABLES:
            function = f"{name}_table"
            monkeypatch.setattr(module, function, once(getattr(module, function)))


@pytest.fixture
def shown_tables(monkeypatch):
    """Table of each figure that a page draws, by name; none is a kept one, which has all rows."""
    monkeypatch.setattr(kept, "FILE", "no-views.jsonl")
    tables: dict[str, pd.DataFrame] = {}
    show_data = widgets.show_data

    def noted(table, name, *args, **kwargs):
        tables[name] = table
        show_data(table, name, *args, **kwargs)

    monkeypatch.setattr(widgets, "show_data", noted)
    return tables


def as_read(table: pd.DataFrame) -> pd.DataFrame:
    """A table as a CSV file gives it back."""
    return pd.read_csv(io.StringIO(table.to_csv(index=False)))


@pytest.mark.usefixtures("tmp_runs")
@pytest.mark.parametrize(("page", "query", "folded"), PAGES)
def test_code_and_command_make_the_table_of_the_page(
    page, query, folded, open_app, shown_tables, monkeypatch, capsys
):
    app = open_app(page, folded=folded, **query)
    for name in shown_tables:
        app.session_state[f"data-{name}"] = True
    app.run()
    assert_no_bug(app)
    figures = []
    monkeypatch.setattr(go.Figure, "show", lambda figure: figures.append(figure))
    codes = [code.value for code in app.code if code.language == "python"]
    shells = [code.value for code in app.code if code.language == "bash"]
    commands = [command for command in shells if " inspect " in command]
    assert len(codes) == len(commands) > 0
    found = []
    for code, command in zip(codes, commands, strict=True):
        namespace: dict = {}
        exec(code, namespace)  # the code as it is printed
        found.append(namespace["table"])
        capsys.readouterr()
        words = shlex.split(command)
        assert words[:4] == ["python", "-m", "csreft_core", "inspect"]
        assert main(words[3:]) == 0
        printed = pd.read_csv(io.StringIO(capsys.readouterr().out))
        assert_frame_equal(printed, as_read(found[-1]), check_dtype=False, rtol=1e-5, atol=1e-6)
    assert len(figures) == len(codes)
    for table in found:
        assert any(same(table, of_page) for of_page in shown_tables.values()), table


def same(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    try:
        assert_frame_equal(one, other, rtol=1e-5, atol=1e-6)
    except AssertionError:
        return False
    return True
