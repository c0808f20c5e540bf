"""Figures of memory on small tables."""

import pandas as pd
import pytest

from csreft_core.charts.base import base_sizes, need_bars, size_text
from csreft_core.charts.theme import DARK, LIGHT


def need_rows(free: int) -> pd.DataFrame:
    rows = [("needed", "weights", 600), ("needed", "logits", 400), ("free", "free", free)]
    return pd.DataFrame(rows, columns=["kind", "part", "bytes"])


KNOWN = pd.DataFrame(
    [("a", "fp32", 4e9, 8e9), ("a", "nf4", 1e9, 8e9), ("b", "fp32", 16e9, 8e9)],
    columns=["base", "precision", "bytes", "free"],
)


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (4_600, "5 kB"),
        (4_600_000, "4.6 MB"),
        (45_400_000, "45 MB"),
        (3.94e9, "3.9 GB"),
    ],
)
def test_sizes_are_read_in_powers_of_ten(n_bytes, text):
    assert size_text(n_bytes) == text


def test_the_parts_are_stacked_and_their_sum_stands_beside_what_is_free():
    figure = need_bars(need_rows(free=2_000))
    parts = {trace.name: trace.x[0] for trace in figure.data[:-1]}
    assert parts == {"weights": 0.6, "logits": 0.4}
    assert figure.layout.barmode == "stack"
    assert dict(zip(figure.data[-1].y, figure.data[-1].x, strict=True)) == {"needed": 1, "free": 2}
    assert figure.layout.xaxis.title.text == "memory (kB)"
    assert "60.0% of what is needed" in figure.data[0].hovertemplate


def test_what_does_not_fit_looks_different():
    def look(free):
        marker = need_bars(need_rows(free)).data[-1].marker
        return marker.color[0], marker.pattern.shape[0]

    fits, exactly, too_much = look(2_000), look(1_000), look(999)
    assert fits == exactly == (LIGHT.colours[0], "")
    assert too_much == (LIGHT.colours[1], "/")


def test_known_bases_are_dots_by_number_format_and_free_is_a_line():
    figure = base_sizes(KNOWN)
    dots = {trace.name: dict(zip(trace.y, trace.x, strict=True)) for trace in figure.data}
    assert dots == {"fp32": {"a": 4, "b": 16}, "nf4": {"a": 1}}
    assert figure.layout.shapes[0].x0 == 8
    assert figure.layout.xaxis.type == "log"
    assert "GB" in figure.layout.xaxis.title.text


@pytest.mark.parametrize(("draw", "table"), [(need_bars, need_rows(9)), (base_sizes, KNOWN)])
def test_every_figure_asks_has_an_alt_text_a_palette_and_an_empty_state(draw, table):
    for palette in (LIGHT, DARK):
        before = table.copy(deep=True)
        figure = draw(table, palette=palette)
        pd.testing.assert_frame_equal(table, before)
        assert figure.layout.meta["question"].endswith("?")
        assert len(figure.layout.meta["alt"]) > 20
        assert figure.layout.template.layout.paper_bgcolor == palette.background
        assert all(trace.hovertemplate for trace in figure.data)
    empty = draw(table.iloc[:0])
    assert not empty.data
    assert len(empty.layout.annotations[0].text) > 10
