"""Styles, thinning, and colours that are those of the pages."""

import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csreft_core.charts import theme
from tests.repository import ROOT

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(("name", "palette"), [("light", theme.LIGHT), ("dark", theme.DARK)])
def test_figures_have_the_colours_of_the_pages(name, palette):
    settings = tomllib.loads((ROOT / ".streamlit/config.toml").read_text(encoding="utf-8"))
    assert list(palette.colours) == settings["theme"][name]["chartCategoricalColors"]
    assert palette.background == settings["theme"][name]["backgroundColor"]
    assert palette.text == settings["theme"][name]["textColor"]


def test_styles_differ_without_colour_and_beyond_eight_names():
    style = theme.styles([f"skill {i}" for i in range(20)], theme.LIGHT)
    first = list(style.values())[:8]
    assert len({s.marker for s in first}) == len({s.pattern for s in first}) == 8
    assert len(set(style.values())) == 20
    assert style["skill 0"] == theme.styles(["skill 0"], theme.LIGHT)["skill 0"]


def test_known_names_come_first():
    assert theme.ordered(["b", "a", "x"], ["a", "c", "b", "a"]) == ["b", "a", "c"]
    assert theme.ordered(None, ["b", "a"]) == ["b", "a"]


@given(st.integers(5, 3000), st.integers(0, 2**31))
def test_thinning_keeps_ends_and_extremes(n, seed):
    y = np.random.default_rng(seed).normal(size=n)
    x, thin = theme.thin(range(n), y, most=100)
    assert len(x) <= max(100, 0) or n <= 100
    assert (x[0], x[-1]) == (0, n - 1)
    assert (thin.min(), thin.max()) == (y.min(), y.max())
    assert (np.diff(x) > 0).all()
    assert (thin == y[x.astype(int)]).all()


def test_thinning_keeps_a_gap_and_leaves_short_lines_alone():
    y = np.ones(1000)
    y[300:700] = np.nan
    assert np.isnan(theme.thin(range(1000), y, most=40)[1]).any()
    assert theme.thin([1, 2], [3, 4])[1].tolist() == [3, 4]


def test_a_palette_without_background_leaves_the_template_to_the_page():
    screen = theme.Palette(colours=theme.LIGHT.colours, muted="#000036")
    assert theme.empty("q", "nothing", screen).layout.template.layout.paper_bgcolor != "#ffffff"
    light = theme.empty("q", "nothing", theme.LIGHT)
    assert light.layout.template.layout.paper_bgcolor == "#ffffff"
    dark = theme.empty("q", "nothing", theme.DARK)
    assert dark.layout.template.layout.paper_bgcolor == "#12161d"
