"""Texts that are not ours stay texts in a figure."""

import pandas as pd
import plotly.graph_objects as go
import pytest

from csreft_core.charts.theme import LIGHT, finish
from csreft_core.charts.training import loss_curves

pytestmark = pytest.mark.fast

LINK = '<a href="http://evil.example">french</a>'


def finished(figure):
    return finish(figure, question=f"Of {LINK}?", alt=LINK, palette=LIGHT, height=200)


def test_a_skill_named_like_a_link_is_drawn_as_its_name():
    table = pd.DataFrame(
        [(step, LINK, split, 1.0) for step in (1, 2) for split in ("train", "validation")],
        columns=["step", "skill", "split", "loss"],
    )
    drawn = loss_curves(table, [LINK]).to_json()
    assert "french" in drawn
    assert "<a href" not in drawn.replace(r"\u003c", "<").replace("Of " + LINK, "")


@pytest.mark.parametrize("text", [LINK, "<unk>", "<img src=x>", "<B>", "< b>", "<script>"])
def test_only_our_own_tags_are_tags(text):
    shown = text.replace("<", "&lt;")
    figure = go.Figure(go.Heatmap(z=[[1]], x=[text], customdata=[[text]]))
    figure.add_scatter(x=[1], y=[1], name=text, text=[text], hovertemplate=f"{text}<br>%{{x}}")
    figure.add_annotation(text=f"<b>{text}</b>")
    figure.update_xaxes(ticktext=[text, "plain"], tickvals=[0, 1])
    figure.frames = [go.Frame(data=[go.Scatter(x=[1], y=[1], name=text)])]
    figure = finished(figure)
    assert figure.data[0].x[0] == figure.data[0].customdata[0][0] == shown
    assert figure.data[1].name == figure.data[1].text[0] == shown
    assert figure.data[1].hovertemplate == f"{shown}<br>%{{x}}"
    assert figure.layout.annotations[0].text == f"<b>{shown}</b>"
    assert list(figure.layout.xaxis.ticktext) == [shown, "plain"]
    assert figure.frames[0].data[0].name == shown
    assert figure.layout.meta["question"] == f"Of {LINK}?"  # the page escapes it


def test_figures_without_foreign_tags_stay_as_they_are():
    figure = go.Figure(go.Scatter(x=[1, 2], y=[3, 4], name="a < b", text=["<b>x</b>", "y"]))
    assert finished(go.Figure(figure)).data[0].text == ("<b>x</b>", "y")
    assert finished(figure).data[0].name == "a &lt; b"
