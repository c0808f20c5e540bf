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
from csreft_core.app.figures import judged
from csreft_core.app.page.markup import plain
from csreft_core.app.page.state import remembered, written
from csreft_core.app.page.widgets import show_data
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
_ROUTERS = {"paper": "the paper's: d, d/2, k", "32": "32 wide, with a norm", "none": "none"}


def show_verdicts() -> None:
    """Each claim with its verdict; what was measured opens below it."""
    own = {i: c for i, c in judged.all_comparisons().items() if not i.startswith(judged.SHIPPED)}
    chosen = _SHIPPED
    if own:
        chosen = remembered("claims-from", _SHIPPED, [_SHIPPED, *own])
        st.selectbox(
            "Comparison",
            [_SHIPPED, *own],
            key="claims-from",
            on_change=written,
            args=("claims-from",),
            width=320,
            help="Where the differences between methods come from; all else is from shipped runs.",
        )
    folders = tables.shipped() if chosen == _SHIPPED else (judged.path_of(own[chosen]),)
    arguments = {"comparisons": folders}
    conditions = judged.table(tables.conditions_table, judged.stamp(*folders), **arguments)
    verdicts = judge_claims(conditions)
    st.markdown(plain(sentences.sentence_verdicts(verdicts)))
    st.caption(
        "A claim holds here if every 95 % interval lies beyond its bound, against its control. On "
        "this base, data and settings; elsewhere it can be otherwise. Some rules were changed "
        "after results had been seen; which, and why: docs/claims.md."
    )
    for claim in verdicts.to_dict("records"):
        _show_claim(claim, conditions[conditions["claim"] == claim["claim"]])
    show_data(conditions, "claims", command=judged.command(tables.conditions_table, arguments))


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
        panel = st.expander(
            "Figure, and how to measure it again",
            icon=":material/straighten:",
            key=f"open-{claim['claim']}",
            on_change="rerun",
        )
        if panel.open:
            with panel:
                _show_evidence(claim["claim"], conditions)


def _show_evidence(claim: str, conditions: pd.DataFrame) -> None:
    judged.draw(charts.condition_intervals, conditions, name=f"conditions-{claim}")
    if claim == "R3" and Path(memorisation.MEMORISED).is_file():
        judged.show(
            memorisation.shares_table,
            memorisation_charts.memory_lines,
            name="memorisation",
            sentence=sentences.sentence_memory,
        )
    for command in dict.fromkeys(conditions["command"]):
        st.code(command, language="bash", wrap_lines=True)


def show_parameters() -> None:
    """The calculator, the papers' counts, and 0.0098 % worked out."""
    setting = _choose_setting()
    left, right = st.columns(2, gap="large")
    with left:
        judged.show(
            parameters.calculator_table,
            parameter_charts.parameter_bars,
            name="calculator",
            sentence=sentences.sentence_parameters,
            **setting,
        )
    with right:
        judged.show(
            parameters.inversion_table,
            parameter_charts.share_dots,
            name="inversion",
            sentence=sentences.sentence_inversion,
        )
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
    show_data(table, "published", command=judged.command(parameters.published_table, {}))
    with st.expander("Settings with four subspaces whose ranks add up to 80", key="settings-80"):
        st.dataframe(parameters.configurations_table(), hide_index=True)


def _choose_setting() -> dict[str, Any]:
    """The calculator's controls; all of them stay in the URL."""
    with st.container(horizontal=True):
        base = _choose("p-base", "Base", tuple(shapes()), 170)
        layers = [str(n) for n in range(1, shape_of(base).n_layers + 1)]
        k = _choose("p-k", "Subspaces k", [str(n) for n in range(1, 9)], 120, "4")
        rank = _choose("p-r", "Rank r", ("1", "2", "4", "5", "8", "10", "16", "20", "32"), 120, "4")
        edited = _choose("p-l", "Edited layers", layers, 130, "4")
        groups = _choose("p-g", "First and last tokens", ("tied", "untied"), 150)
        remembered("p-router", "paper", _ROUTERS)
        st.selectbox(
            "Router",
            list(_ROUTERS),
            key="p-router",
            on_change=written,
            args=("p-router",),
            format_func=lambda name: _ROUTERS[name],
            width=220,
        )
    return {
        "base": base,
        "subspaces": int(k),
        "rank": int(rank),
        "layers": int(edited),
        "groups": 2 if groups == "untied" else 1,
        "router": st.session_state["p-router"],
    }


def _choose(
    name: str, label: str, options: tuple[str, ...] | list[str], width: int, default: str = ""
) -> str:
    remembered(name, default or options[0], options)
    st.selectbox(label, options, key=name, on_change=written, args=(name,), width=width)
    return st.session_state[name]


def show_results() -> None:
    """One printed table of a paper, with the origin of each row."""
    contents = paper_tables.contents_table().set_index("table")
    remembered("paper-table", "csreft", paper_tables.table_names())
    st.selectbox(
        "Table",
        list(contents.index),
        key="paper-table",
        on_change=written,
        args=("paper-table",),
        format_func=lambda t: f"{contents.loc[t, 'title']} ({contents.loc[t, 'printed_in']})",
        width=480,
    )
    name: str = st.session_state["paper-table"]
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
    show_data(table, "results", command=judged.command(paper_tables.results_table, arguments))


def show_release() -> None:
    """What the paper says beside what its released code does."""
    paper, release = paper_tables.release_sources()
    st.subheader("Does the released code do what the paper says?", anchor=False)
    table = paper_tables.release_table()
    shown = pd.DataFrame(
        {
            "topic": table["topic"],
            "paper": _placed(table["paper"], table["paper_at"]),
            "released code": _placed(table["release"], table["release_at"]),
        }
    )
    st.table(shown.set_index("topic"))
    st.caption(f"{paper}; {release}. In brackets: sections of the paper, files and lines.")
    show_data(table, "release", command=judged.command(paper_tables.release_table, {}))


def _placed(texts: pd.Series, places: pd.Series) -> list[str]:
    return [
        f"{text} ({place})" if place else text for text, place in zip(texts, places, strict=True)
    ]
