"""Figures about a skill set: balance, lengths, twins between splits, similar skills."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from csreft_core.charts.elements import bar_marker, cells
from csreft_core.charts.gates.maps import SHARE_SCALE
from csreft_core.charts.gates.words import as_text
from csreft_core.charts.theme import LIGHT, Palette, empty, finish, ordered, styles

_PATTERNS = ("", "/", "x", ".", "\\", "-")
_MOST_BARS = 40
_LONGEST_NAME = 24
# Grey for none, then ever darker red; the number in the cell says the same.
_FOUND_SCALE = ((0.0, "#e6e9ee"), (0.001, "#f6cdbb"), (1.0, "#b5361c"))


def balance_bars(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Rows of each skill, one bar a skill with a segment a split.

    Args:
        table: `counts_table`: columns skill, split, n (rows).
        names: Order of the skills; gives each its colour.
        palette: Colours.
    """
    question = "Is it balanced?"
    if table.empty:
        return empty(question, "No rows to count.", palette)
    skills = ordered(names, table["skill"])
    style = styles(skills, palette)
    splits = list(dict.fromkeys(table["split"]))
    wide = table.pivot_table(index="skill", columns="split", values="n", sort=False).loc[skills]
    colours = [style[skill].colour for skill in skills]
    figure = go.Figure()
    for i, split in enumerate(splits):
        pattern = {"shape": _PATTERNS[i % len(_PATTERNS)], "fillmode": "replace", "solidity": 0.4}
        # Text cannot be read on a pattern; the first split, which has none, is the one to compare.
        figure.add_bar(
            x=wide[split],
            y=skills,
            orientation="h",
            showlegend=False,
            text=[f"{int(n):,}" if i == 0 and n else "" for n in wide[split]],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            marker={"color": colours, "pattern": pattern, "line": {"width": 1, "color": colours}},
            hovertemplate=f"%{{y}}, {split}: %{{x:,}} rows<extra></extra>",
        )
        # The colours are the skills'; the legend explains the patterns alone.
        line = {"width": 1, "color": palette.muted}
        figure.add_bar(
            x=[None],
            y=[None],
            orientation="h",
            name=split,
            marker={"color": palette.muted, "pattern": pattern, "line": line},
        )
    figure.update_layout(barmode="stack", uniformtext={"minsize": 11, "mode": "hide"})
    figure.update_xaxes(title="rows")
    figure.update_yaxes(
        tickvals=skills, ticktext=[_short(skill) for skill in skills], autorange="reversed"
    )
    alt = f"Stacked bars: rows of {len(skills)} skills in {', '.join(splits)}."
    height = 150 + 34 * len(skills)
    finish(figure, question=question, alt=alt, palette=palette, height=height)
    return figure.update_layout(margin={"t": 70}, legend={"traceorder": "normal"})


def length_histogram(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """How long the rows are in tokens, and where they are cut.

    Args:
        table: `lengths_table`: columns tokens, limit, split.
        palette: Colours.
    """
    question = "What will be cut?"
    if table.empty:
        return empty(question, "No rows to measure.", palette)
    tokens, limit = table["tokens"].to_numpy(), int(table["limit"].iloc[0])
    width = max(1, int(np.ceil((tokens.max() - tokens.min() + 1) / _MOST_BARS)))
    # A bin ends at the limit, so no bar is half cut.
    first = limit + 1 - width * int(np.ceil((limit + 1 - tokens.min()) / width))
    edges = np.arange(first, tokens.max() + width + 1, width)
    counts, _ = np.histogram(tokens, edges)
    figure = go.Figure()
    for name, is_cut, pattern in (("fits", False, ""), ("is cut", True, "/")):
        chosen = (edges[:-1] > limit) == is_cut
        if not counts[chosen].any():
            continue
        low = edges[:-1][chosen]
        labels = [str(a) if width == 1 else f"{a} to {a + width - 1}" for a in low]
        figure.add_bar(
            x=low + (width - 1) / 2,
            y=counts[chosen],
            width=0.9 * width,
            name=name,
            customdata=labels,
            marker=bar_marker(palette.colours[1 if is_cut else 0], pattern, solidity=0.55),
            hovertemplate=f"%{{customdata}} tokens: %{{y:,}} rows<extra>{name}</extra>",
        )
    near = limit <= 1.5 * tokens.max()
    if near:
        line = {"color": palette.muted, "dash": "dash", "width": 2}
        figure.add_vline(x=limit + 0.5, line=line)
    figure.add_annotation(
        x=limit + 0.5 if near else 1,
        xref="x" if near else "paper",
        y=1,
        yref="paper",
        yanchor="bottom",
        xanchor="center" if near else "right",
        showarrow=False,
        text=f"cut-off: {limit:,}" if near else f"cut-off: {limit:,}, far to the right",
    )
    figure.update_xaxes(title="tokens (prompt with template, answer, end)")
    figure.update_yaxes(title="rows")
    alt = f"Histogram: rows by their length in tokens; rows beyond {limit} are cut."
    finish(figure, question=question, alt=alt, palette=palette, height=340)
    # The name of the cut-off stands between the plot and the legend.
    return figure.update_layout(margin={"t": 76}, legend={"y": 1.12})


def leak_map(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """For each pair of splits, the rows of one that have a twin in the other.

    Args:
        table: `leaks_table`: columns split, other, n, exact, near, conflicts (rows).
        palette: Colours.
    """
    question = "Is there leakage?"
    splits = list(dict.fromkeys(table["split"]))
    if not splits:
        return empty(question, "No rows to compare.", palette)
    rows = {(row["split"], row["other"]): row for row in table.to_dict("records")}
    pairs = [[rows[a, b] for b in splits] for a in splits]
    twins = [[pair["exact"] + pair["near"] for pair in line] for line in pairs]
    hover = [
        [
            f"{a}: {pair['exact']:,} of {pair['n']:,} rows have the very same prompt as a row of "
            f"{b},<br>{pair['near']:,} nearly the same; {pair['conflicts']:,} answer differently"
            for b, pair in zip(splits, line, strict=True)
        ]
        for a, line in zip(splits, pairs, strict=True)
    ]
    figure = go.Figure(
        go.Heatmap(
            cells(twins, [[f"{n:,}" for n in line] for line in twins], hover, gap=2),
            zmin=0,
            zmax=max(1, *(n for line in twins for n in line)),
            showscale=False,
            colorscale=[list(stop) for stop in _FOUND_SCALE],
        )
    )
    _name_axes(figure, splits, "rows of", "with a twin in")
    alt = f"Heat-map over {len(splits)} splits: rows whose prompt stands in another split as well."
    height = 170 + 36 * len(splits)
    return finish(figure, question=question, alt=alt, palette=palette, height=height)


def similarity_map(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """How alike the prompts of two skills are, with each skill among itself on the diagonal.

    Args:
        table: `similarity_table`: columns skill, other, similarity (0 to 1), n, n_other.
        names: Order of the skills.
        palette: Colours.
    """
    question = "Are two skills the same thing?"
    skills = ordered(names, table["skill"])
    if not skills:
        return empty(question, "No rows to compare.", palette)
    rows = {(row["skill"], row["other"]): row for row in table.to_dict("records")}
    pairs = [[rows[a, b] for b in skills] for a in skills]
    values = [[pair["similarity"] for pair in line] for line in pairs]
    hover = [
        [
            f"{as_text(pair['skill'])} ({pair['n']:,} rows) and {as_text(pair['other'])} "
            f"({pair['n_other']:,}): {pair['similarity']:.3f}"
            for pair in line
        ]
        for line in pairs
    ]
    texts = [["" if pd.isna(v) else f"{v:.2f}" for v in line] for line in values]
    largest = float(table["similarity"].max())
    figure = go.Figure(
        go.Heatmap(
            cells(values, texts, hover, gap=2),
            showscale=False,
            zmin=0,
            zmax=largest if largest > 0 else 1,
            colorscale=[list(stop) for stop in SHARE_SCALE],
            hoverongaps=False,
        )
    )
    if len(skills) > _MOST_BARS // 3:
        figure.update_traces(texttemplate=None)
    _name_axes(figure, [_short(skill) for skill in skills], "", "mean cosine of tf-idf (0 to 1)")
    alt = (
        f"Heat-map: mean tf-idf cosine between the prompts of {len(skills)} skills; the diagonal "
        "compares a skill with itself."
    )
    height = 150 + 40 * len(skills)
    return finish(figure, question=question, alt=alt, palette=palette, height=height)


def _name_axes(figure: go.Figure, names: Sequence[str], rows: str, columns: str) -> None:
    places, labels = list(range(len(names))), [as_text(name) for name in names]
    shown = {"tickvals": places, "showgrid": False, "zeroline": False, "ticks": ""}
    figure.update_xaxes(title=columns, ticktext=labels, **shown)
    figure.update_yaxes(title=rows, ticktext=labels, autorange="reversed", **shown)


def _short(name: str) -> str:
    """A skill's name as a label."""
    text = as_text(" ".join(name.split()))
    return text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"
