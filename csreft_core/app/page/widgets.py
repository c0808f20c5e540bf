"""A chart with its heading, sentence, table and downloads; the texts of the tooltips."""

import json
import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from csreft_core.analysis.statistics.interval_words import interval_unit
from csreft_core.app.page.markup import plain
from csreft_core.charts.theme import DARK, LIGHT, Palette
from csreft_core.config import ASSETS
from csreft_core.skills.spreadsheets import csv_text

_CONFIG = {"displaylogo": False, "toImageButtonOptions": {"format": "png", "scale": 2}}


def screen() -> Palette:
    """Stand-ins that the browser replaces by the colours of the page's theme, light or dark."""
    return Palette(colours=tuple(f"#00000{i}" for i in range(1, 9)), muted="#000036")


def page_palette() -> Palette:
    """The colours of the page's theme itself, for what the browser does not recolour."""
    return DARK if st.context.theme.type == "dark" else LIGHT


@st.cache_data(max_entries=1, show_spinner=False)
def _texts() -> dict[str, str]:
    files = sorted((ASSETS / "texts").glob("*.json"))
    return {k: v for f in files for k, v in json.loads(f.read_text(encoding="utf-8")).items()}


def help_text(name: str) -> str:
    """The tooltip of a chart or a number."""
    return _texts()[name]


def show_chart(
    draw: Callable[..., go.Figure],
    table: pd.DataFrame,
    *args: Any,
    name: str,
    sentence: str = "",
    live: bool = False,
    heading: str | None = None,
    code: str = "",
    command: str = "",
    figure: go.Figure | None = None,
    **options: Any,
) -> None:
    """Draw a chart under its question, with the sentence that sums it up and its data.

    Args:
        draw: A function of `csreft_core.charts`.
        table: Its table.
        args: More arguments of `draw`.
        name: Of the help text, and of the downloads.
        sentence: Computed from the table.
        live: The chart changes while one looks at it; its accessible name then stays the same.
        heading: Instead of the chart's question.
        code: Python that makes the same figure.
        command: The command that prints the same table.
        figure: The chart, where it is drawn already.
        options: Keyword arguments of `draw`.
    """
    if figure is None:
        figure = draw(table, *args, palette=screen(), **options)
    meta = _meta(figure)
    question, alt = meta["question"], meta["alt"]
    st.subheader(plain(heading or question), help=help_text(name.split("-")[0]), anchor=False)
    st.plotly_chart(
        figure,
        key=f"chart-{name}",
        config=_CONFIG,
        alt=alt if live or not sentence else f"{alt} {sentence}",
    )
    if sentence:
        st.markdown(plain(sentence))
    if unit := interval_unit(table):
        st.caption(f"95 % intervals over {unit}.")
    show_data(
        table,
        name,
        figure=lambda palette: draw(table, *args, palette=palette, **options),
        code=code,
        command=command,
    )


def show_data(
    table: pd.DataFrame,
    name: str,
    figure: Callable[[Palette], go.Figure | str] | None = None,
    *,
    code: str = "",
    command: str = "",
) -> None:
    """A button that opens the table, its CSV, the figure as an offline page, and how to make it."""
    popover = st.popover(
        "Data",
        icon=":material/table:",
        type="tertiary",
        key=f"data-{name}",
        on_change="rerun",
        help="The table behind this, to read or to download, and the code that makes it.",
    )
    if not popover.open:
        return
    with popover:
        st.dataframe(table, hide_index=True, height=min(320, 38 + 35 * max(1, len(table))))
        with st.container(horizontal=True):
            offer_file("Table (CSV)", lambda: csv_text(table), f"{name}.csv", key=f"csv-{name}")
            if figure is not None:
                palette = page_palette()
                offer_file(
                    "Figure (offline page, 5 MB)",
                    lambda: offline_page(figure(palette)),
                    f"{name}.html",
                    key=f"html-{name}",
                )
        if code:
            st.caption("The same figure in Python, in the folder of this project")
            st.code(code, language="python", wrap_lines=True)
        if command:
            st.caption("The same table on the command line")
            st.code(command, language="bash", wrap_lines=True)


_MIMES = {
    "csv": "text/csv",
    "html": "text/html",
    "json": "application/json",
    "jsonl": "application/jsonl",
    "md": "text/markdown",
    "zip": "application/zip",
}


def offer_file(
    label: str,
    write: Callable[[], str | bytes],
    file_name: str,
    *,
    key: str,
    help: str | None = None,
) -> None:
    """A button that downloads a file; it is written when the button is pressed.

    Args:
        label: On the button.
        write: Gives the content.
        file_name: What the browser calls it; its ending says what it is.
        key: Of the button.
        help: The tooltip.
    """
    st.download_button(
        label,
        write,
        file_name=file_name,
        mime=_MIMES[file_name.rpartition(".")[2]],
        icon=":material/download:",
        key=key,
        help=help,
        on_click="ignore",
    )


def _meta(figure: go.Figure) -> dict[str, str]:
    """The question and the alt text that the chart wrote into its layout."""
    return figure.to_dict()["layout"]["meta"]


def offline_page(figure: go.Figure | str) -> str:
    """The figure as one HTML file with everything in it; its question is the title.

    A figure that is such a page already stays as it is.
    """
    if isinstance(figure, str):
        return figure
    titled = go.Figure(figure)
    titled.update_layout(title=_meta(figure)["question"], margin={"t": 110})
    return titled.to_html(include_plotlyjs=True, full_html=True)


def duration(seconds: float) -> str:
    """A time span as one reads it, such as `1 min 5 s`; a dash where it is not known."""
    if not math.isfinite(seconds):
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
