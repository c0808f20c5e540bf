"""Matrices are read as tables are: the first row on top."""

import plotly.graph_objects as go

from csreft_core.charts.cells import cell_axes


def test_the_first_row_is_on_top():
    figure = go.Figure()
    cell_axes(figure, ("gates", ["a", "b"]), ("skills", ["c"]))
    assert figure.layout.yaxis.autorange == "reversed"
    assert figure.layout.yaxis.ticktext == ("a", "b")
    assert figure.layout.xaxis.title.text == "skills"
