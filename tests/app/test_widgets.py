"""A chart's data: table, CSV and a page that works offline."""

import pandas as pd
import pytest

from csreft_core.app.page.widgets import duration, offline_page
from csreft_core.charts.theme import DARK, LIGHT
from csreft_core.charts.training import run_curves
from tests.page_runs import assert_no_bug

RUNS = pd.DataFrame([("r", 0, 4.0), ("r", 5, 1.0)], columns=["run", "step", "loss"])


def test_the_data_button_opens_table_and_downloads(open_app, make_run):
    make_run()
    app = open_app(run="mine")
    assert not app.get("download_button")
    app.session_state["data-gates"] = True
    app.run()
    assert_no_bug(app)
    assert len(app.dataframe[0].value) == 4
    assert list(app.dataframe[0].value) == ["prompt", "skill", "subspace", "gate"]
    labels = [button.proto.label for button in app.get("download_button")]
    assert labels == ["Table (CSV)", "Figure (offline page, 5 MB)"]


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_the_offline_page_needs_nothing_from_outside(palette):
    page = offline_page(run_curves(RUNS, palette=palette))
    assert "<script src=" not in page
    assert "<link" not in page
    assert "Which run learns faster" in page
    assert palette.background in page
    assert len(page) > 3_000_000  # plotly itself is inside


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (60.0, "1 min 0 s"),
        (3599.0, "59 min 59 s"),
        (7260.0, "2 h 1 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
