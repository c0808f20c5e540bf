"""Panels of the Claims page: verdicts with what they rest on, parameters, the papers' tables."""

from pathlib import Path
from typing import Any, Literal

import pandas as pd
import streamlit as st

from csreft_core.analysis.claims import memorisation, paper_tables, parameters, sentences, tables
from csreft_core.analysis.claims.parameter_formulas import shape_of, shapes
from csreft_core.analysis.claims.rules import (
    FAILS,
    HOLDS,
    IDENTITY,
    UNDECIDED,
    UNTESTABLE,
    judge_claims,
)
from csreft_core.app.figures.figure import Figure, table_of
from csreft_core.app.figures.shown_code import command
from csreft_core.app.figures.source import JUDGED, short_path
from csreft_core.app.page import library
from csreft_core.app.page.choices import choose
from csreft_core.app.page.markup import plain
from csreft_core.app.page.parts import fold
from csreft_core.app.page.widgets import show_chart, show_data
from csreft_core.charts.claims import figures as charts
from csreft_core.charts.claims import memorisation as memorisation_charts
from csreft_core.charts.claims import parameters as parameter_charts

VERDICTS, PARAMETERS, RESULTS, RELEASE = (
    "Verdicts",
    "Parameters",
    "The papers' results",
    "Paper and code",
)
PARTS = (VERDICTS, PARAMETERS, RESULTS, RELEASE)

_BADGES: dict[str, tuple[Literal["green", "red", "gray", "orange"], str]] = {
    HOLDS: ("green", ":material/check_circle:"),
    IDENTITY: ("gray", ":material/equal:"),
    UNDECIDED: ("orange", ":material/help:"),
    FAILS: ("red", ":material/cancel:"),
    UNTESTABLE: ("gray", ":material/block:"),
}
_SHIPPED = "shipped"
_RANKS = ("1", "2", "4", "5", "8", "10", "16", "20", "32")
_ROUTERS = {"paper": "the paper's: d, d/2, k", "32": "32 wide, with a norm", "none": "none"}

_MEMORISATION = Figure(
    "memorisation",
    memorisation.shares_table,
    memorisation_charts.memory_lines,
    sentences.sentence_memory,
)
_CALCULATOR = Figure(
    "calculator",
    parameters.calculator_table,
    parameter_charts.parameter_bars,
    sentences.sentence_parameters,
)
_INVERSION = Figure(
    "inversion",
    parameters.inversion_table,
    parameter_charts.share_dots,
    sentences.sentence_inversion,
)


def show_verdicts() -> None:
    """Each claim with its verdict; what was measured opens below it."""
    comparisons = library.all_comparisons()
    own = {i: c for i, c in comparisons.items() if not library.is_example(i)}
    chosen = _SHIPPED
    if own:
        chosen = choose(
            "claims-from",
            "Comparison",
            [_SHIPPED, *own],
            width=320,
            help="Where the differences between methods come from; all else is from shipped runs.",
        )
    folders = tables.shipped() if chosen == _SHIPPED else (short_path(own[chosen].path),)
    arguments = {"comparisons": folders}
    conditions = table_of(JUDGED, tables.conditions_table, **arguments)
    verdicts = judge_claims(conditions)
    st.markdown(plain(sentences.sentence_verdicts(verdicts)))
    st.caption(
        "A claim holds here if every 95 % interval lies beyond its bound, against its control. On "
        "this base, data and settings; elsewhere it can be otherwise. Some rules were changed "
        "after results had been seen; which, and why: docs/claims.md."
    )
    for claim in verdicts.to_dict("records"):
        _show_claim(claim, conditions[conditions["claim"] == claim["claim"]])
    show_data(conditions, "claims", command=command(JUDGED, tables.conditions_table, arguments))


def _show_claim(claim: dict, conditions: pd.DataFrame) -> None:
    colour, icon = _BADGES.get(claim["verdict"], ("orange", ":material/hourglass_empty:"))
    with st.container(border=True, key=f"claim-{claim['claim']}"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{claim['claim']}** · {claim['paper']}, {claim['places']}")
            st.badge(claim["verdict"], color=colour, icon=icon)
        st.markdown(claim["text"])
        if claim["why_not"]:
            st.markdown(claim["why_not"])
        if claim["verdict"] == UNTESTABLE:
            return
        for _, row in conditions.iterrows():
            st.markdown(
                f"- **{plain(row['quantity'])}**, against {plain(row['control'])}. "
                f"{plain(sentences.sentence_condition(row))}"
            )
        fold(
            "Figure, and how to measure it again",
            lambda: _show_evidence(claim["claim"], conditions),
            key=f"open-{claim['claim']}",
            icon=":material/straighten:",
        )


def _show_evidence(claim: str, conditions: pd.DataFrame) -> None:
    show_chart(charts.condition_intervals, conditions, name=f"conditions-{claim}")
    if claim == "R3" and Path(memorisation.MEMORISED).is_file():
        _MEMORISATION.show(JUDGED)
    for words in dict.fromkeys(conditions["command"]):
        st.code(words, language="bash", wrap_lines=True)


def show_parameters() -> None:
    """The calculator, the papers' counts, and 0.0098 % worked out."""
    setting = _choose_setting()
    left, right = st.columns(2, gap="large")
    with left:
        _CALCULATOR.show(JUDGED, **setting)
    with right:
        _INVERSION.show(JUDGED)
    st.subheader("Do the formulas give the papers' counts?", anchor=False)
    table = parameters.published_table()
    st.dataframe(
        table,
        hide_index=True,
        key="published",
        column_config={
            "share": st.column_config.NumberColumn("share (%)", format="%.4f"),
            "printed": st.column_config.TextColumn("printed (%)"),
        },
    )
    show_data(table, "published", command=command(JUDGED, parameters.published_table, {}))
    with st.expander("Settings with four subspaces whose ranks add up to 80", key="settings-80"):
        st.dataframe(parameters.configurations_table(), hide_index=True)


def _choose_setting() -> dict[str, Any]:
    """The calculator's controls; all of them stay in the URL."""
    with st.container(horizontal=True):
        base = choose("p-base", "Base", list(shapes()), width=170)
        layers = [str(n) for n in range(1, shape_of(base).n_layers + 1)]
        k = choose("p-k", "Subspaces k", [str(n) for n in range(1, 9)], "4", width=120)
        rank = choose("p-r", "Rank r", _RANKS, "4", width=120)
        edited = choose("p-l", "Edited layers", layers, "4", width=130)
        groups = choose("p-g", "First and last tokens", ("tied", "untied"), width=150)
        router = choose("p-router", "Router", _ROUTERS, width=220)
    return {
        "base": base,
        "subspaces": int(k),
        "rank": int(rank),
        "layers": int(edited),
        "groups": 2 if groups == "untied" else 1,
        "router": router,
    }


def show_results() -> None:
    """One printed table of a paper, with the origin of each row."""
    contents = paper_tables.contents_table().set_index("table")
    titles = {
        str(name): f"{row['title']} ({row['printed_in']})" for name, row in contents.iterrows()
    }
    name = choose("paper-table", "Table", titles, "csreft", width=480)
    table = paper_tables.results_table(name=name)
    wide = paper_tables.wide(table)
    st.dataframe(
        wide,
        hide_index=True,
        height=38 + 35 * len(wide),
        key="results",
        column_config={
            "share": st.column_config.NumberColumn("trained (%)", format="%.4f"),
            "origin": st.column_config.TextColumn("who measured it", width="large"),
        },
    )
    st.markdown(plain(sentences.sentence_results(table)))
    st.caption(f"{contents.loc[name, 'note']} None of these numbers was measured here.")
    arguments = {"name": name}
    show_data(table, "results", command=command(JUDGED, paper_tables.results_table, arguments))


def show_release() -> None:
    """What the paper says beside what its released code does."""
    paper, release = paper_tables.release_sources()
    st.subheader("Does the released code do what the paper says?", anchor=False)
    table = paper_tables.release_table()
    shown = pd.DataFrame(
        {
            "topic": table["topic"],
            "paper": _with_places(table["paper"], table["paper_at"]),
            "released code": _with_places(table["release"], table["release_at"]),
        }
    )
    st.table(shown.set_index("topic"))
    st.caption(f"{paper}; {release}. In brackets: sections of the paper, files and lines.")
    show_data(table, "release", command=command(JUDGED, paper_tables.release_table, {}))


def _with_places(texts: pd.Series, places: pd.Series) -> list[str]:
    return [
        f"{text} ({place})" if place else text for text, place in zip(texts, places, strict=True)
    ]
