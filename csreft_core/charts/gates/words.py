"""Figures of what each token of a prompt does to the gates."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from csreft_core.analysis.labels import GATE, GRADIENTS, LOGIT, OCCLUSION
from csreft_core.charts.elements import bar_marker
from csreft_core.charts.theme import LIGHT, Palette, empty, finish, ordered, styles

# Blue shuts a gate, red opens it; the printed sign says the same without colour.
CHANGE_SCALE = (
    (0.0, "#1f5fa8"),
    (0.25, "#8db5dc"),
    (0.5, "#eceef1"),
    (0.75, "#e8a27f"),
    (1.0, "#b5361c"),
)
_NOTHING = "No tokens to show: this adapter has no router, or no prompt was given."
_PANELS = ((OCCLUSION, "taken out"), (GRADIENTS, GRADIENTS))
_TOKEN_HEIGHT = 24


def word_map(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """What each gate loses when a token is taken out, from -1 to 1.

    Args:
        table: `words_table`: of its first prompt, the rows of `occlusion` and quantity `gate` are
            drawn (value: gate of the whole prompt minus gate without the token).
        names: Order of the subspaces.
        palette: Colours.
    """
    question = "Which words decide the gates?"
    shown = table[(table["method"] == OCCLUSION) & (table["quantity"] == GATE)]
    shown = _first_prompt(shown)
    if shown.empty:
        return empty(question, _NOTHING, palette)
    subspaces = ordered(names, shown["subspace"])
    wide = shown.pivot_table(index="position", columns="subspace", values="value")[subspaces]
    without = shown.pivot_table(index="position", columns="subspace", values="reference")
    figure = go.Figure(
        go.Heatmap(
            z=wide.to_numpy(),
            x=list(range(len(subspaces))),
            y=wide.index,
            zmin=-1,
            zmax=1,
            colorscale=CHANGE_SCALE,
            text=[[_with_sign(value) for value in row] for row in wide.to_numpy()],
            texttemplate="%{text}",
            customdata=[
                [
                    f"without {token}: gate {name} is {gate:.4f}, not {gate + value:.4f}"
                    for name, gate, value in zip(subspaces, gates, values, strict=True)
                ]
                for token, gates, values in zip(
                    _tokens(shown), without[subspaces].to_numpy(), wide.to_numpy(), strict=True
                )
            ],
            hovertemplate="%{customdata}<extra></extra>",
            colorbar={
                "title": {"text": "change<br>of gate"},
                "thickness": 12,
                "tickvals": [-1, 0, 1],
                "ticktext": ["-1", "0", "+1"],
            },
            xgap=1,
            ygap=1,
        )
    )
    figure.update_xaxes(
        tickvals=list(range(len(subspaces))), ticktext=subspaces, side="top", showgrid=False
    )
    _token_axis(figure, shown)
    alt = (
        f"Heat-map: change of {len(subspaces)} gates when each of {len(wide)} tokens is taken out, "
        "from -1 to 1."
    )
    height = 90 + _TOKEN_HEIGHT * len(wide)
    return finish(figure, question=question, alt=alt, palette=palette, height=height)


def word_bars(
    table: pd.DataFrame,
    subspace: str | None = None,
    names: Sequence[str] | None = None,
    *,
    palette: Palette = LIGHT,
) -> go.Figure:
    """One gate's logit, token by token: what taking it out changes, beside integrated gradients.

    Args:
        table: `words_table`: of its first prompt, the rows with quantity `logit` are drawn.
        subspace: Whose gate; the largest if left out.
        names: Order of the subspaces; gives the colour.
        palette: Colours.
    """
    shown = _first_prompt(table)
    if shown.empty:
        return empty("Do two methods agree?", _NOTHING, palette)
    subspaces = ordered(names, shown["subspace"])
    gates = shown[shown["quantity"] == GATE]
    strongest = gates["subspace"].iloc[int(gates["full"].to_numpy().argmax())]
    chosen = subspace if subspace in subspaces else str(strongest)
    question = f"Which words count for the gate {chosen}?"
    shown = shown[shown["quantity"] == LOGIT]
    style = styles(subspaces, palette)[chosen]
    shown = shown[shown["subspace"] == chosen].sort_values("position")
    figure = make_subplots(
        rows=1,
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.05,
        subplot_titles=[title for _, title in _PANELS],
    )
    for column, (method, _) in enumerate(_PANELS, 1):
        part = shown[shown["method"] == method]
        for kind in ("word", "template"):
            is_word = part["kind"] == "word"
            bars = part[is_word if kind == "word" else ~is_word]
            figure.add_bar(
                x=bars["value"],
                y=bars["position"],
                orientation="h",
                name="word of the prompt" if kind == "word" else "template or special token",
                legendgroup=kind,
                showlegend=column == 1,
                marker=bar_marker(
                    style.colour if kind == "word" else palette.muted,
                    "" if kind == "word" else "/",
                ),
                customdata=bars[["token", "full", "reference"]],
                hovertemplate="%{customdata[0]}: %{x:+.4f}<br>logit of the whole prompt "
                "%{customdata[1]:.4f}<br>reference %{customdata[2]:.4f}<extra></extra>",
                row=1,
                col=column,
            )
    figure.update_xaxes(title="change of logit", zeroline=True, col=1)
    figure.update_xaxes(title="share of logit", zeroline=True, col=2)
    _token_axis(figure, shown)
    figure.update_annotations(font={"size": 13})
    n = shown["position"].nunique()
    alt = f"Two panels of bars over {n} tokens: by how much each raises the logit of {chosen}."
    height = 130 + _TOKEN_HEIGHT * n
    figure = finish(figure, question=question, alt=alt, palette=palette, height=height)
    return figure.update_layout(
        margin={"t": 62}, legend={"y": 1 + 40 / height}, barmode="overlay", bargap=0.25
    )


def _first_prompt(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["prompt"] == table["prompt"].iloc[0]] if len(table) else table


def _tokens(table: pd.DataFrame) -> list[str]:
    return list(table.drop_duplicates("position").sort_values("position")["token"])


def _token_axis(figure: go.Figure, table: pd.DataFrame) -> None:
    """Tokens from top to bottom; those that the user did not write stand in brackets."""
    tokens = table.drop_duplicates("position").sort_values("position")
    labels = [
        as_text(row.token) if row.kind == "word" else f"<i>[{as_text(row.token)}]</i>"
        for row in tokens.itertuples()
    ]
    # Numbers, so that two equal words keep a place each.
    figure.update_yaxes(
        tickvals=tokens["position"],
        ticktext=labels,
        range=[tokens["position"].max() + 0.5, -0.5],
        showgrid=False,
        zeroline=False,
    )


def as_text(token: object) -> str:
    """A token such as `<bos>` is text, not a tag."""
    return str(token).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _with_sign(value: float) -> str:
    return "0" if abs(value) < 0.005 else f"{value:+.2f}"
