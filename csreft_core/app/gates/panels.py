"""Panels of the Router page about one prompt: its gates, its words, and an edit of it."""

import html

import pandas as pd
import streamlit as st

from csreft_core.analysis.gates import sentences as say
from csreft_core.analysis.gates import word_sentences as say_words
from csreft_core.analysis.labels import READS
from csreft_core.app.figures.figure import Figure, table_of
from csreft_core.app.figures.source import of_run
from csreft_core.app.gates.rows import has_router, splits_of
from csreft_core.app.page import cached
from csreft_core.app.page.choices import choose
from csreft_core.app.page.later import Later
from csreft_core.app.page.prompts import trained_setting
from csreft_core.app.page.shell import offer_training
from csreft_core.app.page.state import forget, keep, recall
from csreft_core.charts.gates import figures as gate_charts
from csreft_core.charts.gates import maps as gate_maps
from csreft_core.charts.gates import words as word_charts
from csreft_core.charts.theme import DARK, LIGHT, ordered, styles
from csreft_core.runs.all_runs import Run
from csreft_core.skills.skill_set import Row, skill_name

gates = Later("csreft_core.analysis.gates.tables")
words = Later("csreft_core.analysis.gates.words")

ONE_PROMPT, HELD_OUT = "One prompt", "Held-out prompts"
PARTS = (ONE_PROMPT, HELD_OUT)
_STRONGEST = "the strongest"

_GATES = Figure("gates-router", gates.gates_table, gate_charts.gate_bars)
_DIFFERENCE = Figure(
    "gatedifference", gates.difference_table, gate_charts.gate_difference, say.sentence_difference
)
_TOKENS = Figure("gatetokens", gates.tokens_table, gate_maps.token_map, say.sentence_tokens)
_WORD_MAP = Figure("wordmap", words.words_table, word_charts.word_map, say_words.sentence_word_map)
_WORD_BARS = Figure("wordbars", words.words_table, word_charts.word_bars)


def intro(run: Run | None) -> None:
    """The page's question."""
    if run is None:
        offer_training("There is no run to show yet. Train one.")
        return
    st.markdown("What does the router decide on a prompt, and does it need to?")


def facts(run: Run) -> None:
    """What the router reads, how often it decides, and how it was taught."""
    router = run.config().router
    if not has_router(run):
        st.info(
            f"This run has no router: its gates are given ({router.gates}). What follows shows "
            "them beside the controls; choose a run with a router to see one decide.",
            icon=":material/info:",
        )
        return
    place = "token embeddings" if router.layer < 0 else f"output of block {router.layer}"
    once = (
        "for each token; single gates of a prompt below are those of its last token"
        if _per_token(run)
        else "once for a whole prompt"
    )
    taught = f"the task loss and the skill labels (weight {router.supervision:g})"
    st.caption(
        f"Reads: {READS[router.input]}, from the {place}. Decides: {once} ({router.gate} gates, "
        f"threshold {router.threshold:g}). Learned from: "
        f"{taught if router.supervision else 'the task loss alone'}."
    )


def _per_token(run: Run) -> bool:
    return run.config().router.granularity == "per_token"


def choose_row(run: Run) -> None:
    """A popover that puts a row of the run's data into the prompt box."""
    popover = st.popover(
        "A row of the data",
        icon=":material/dataset:",
        key="router-rows",
        on_change="rerun",
        help="Take a prompt from the data that the run was trained and tested on.",
    )
    if not popover.open:
        return
    with popover:
        splits = splits_of(run)
        split = st.selectbox("Split", splits, key="router-row-split")
        rows = cached.skill_set_of(run).split(split)
        skills = list(dict.fromkeys(map(skill_name, rows)))
        skill = st.selectbox("Skill", skills, key="router-row-skill")
        of_skill = [r.prompt for r in rows if skill_name(r) == skill]
        st.selectbox(
            f"Prompt ({len(of_skill)})",
            list(dict.fromkeys(of_skill)),
            index=None,
            placeholder="Choose a prompt",
            key="router-row",
            on_change=_take_row,
        )


def _take_row() -> None:
    prompt = st.session_state["router-row"]
    if prompt:
        keep("prompt", prompt)


def show_edit(run: Run, row: Row) -> None:
    """Pin a prompt, change it, and see which gate moved; the pinned prompt is in the URL."""
    pinned = recall("pin", "")
    if pinned and pinned != row.prompt:
        names, prompts = cached.skill_names(run), (pinned, row.prompt)
        _DIFFERENCE.show(of_run(run), options={"names": names}, prompts=prompts)
    else:
        st.subheader("What does a change of the prompt do?", anchor=False)
        st.markdown(
            "Pinned. Now change a word of the prompt above: this place shows which gate moves."
            if pinned
            else "Pin this prompt, then change a word of it: this place shows which gate moves."
        )
    if pinned:
        st.caption("Pinned prompt")
        # As code, because a prompt is no Markdown.
        st.code(pinned, language=None, wrap_lines=True)
    with st.container(horizontal=True):
        st.button(
            "Pin this prompt",
            key="router-pin",
            icon=":material/keep:",
            on_click=keep,
            args=("pin", row.prompt),
            disabled=not row.prompt.strip() or pinned == row.prompt,
        )
        if pinned:
            st.button(
                "Unpin",
                key="router-unpin",
                icon=":material/keep_off:",
                on_click=forget,
                args=("pin",),
            )


def show_gates(run: Run, row: Row) -> None:
    """The gates of the prompt as bars."""
    router = run.config().router
    decides = has_router(run)
    heading = "Which gates are open at the last token?" if _per_token(run) else None
    _GATES.show(
        of_run(run),
        sentence=lambda table: (
            say.sentence_prompt_gates(table, router.threshold)
            if decides
            else f"No router decides here: this run was trained with {router.gates} gates."
        ),
        heading=heading if decides else "Which gates does this run use?",
        options={"names": cached.skill_names(run), "threshold": router.threshold},
        prompts=(row.prompt,),
        gates="learned" if decides else trained_setting(run, row),
    )


def show_tokens(run: Run, row: Row) -> None:
    """The gates along the prompt; only where the router really decides for each token."""
    if not (has_router(run) and _per_token(run)):
        return
    names = cached.skill_names(run)
    table = table_of(of_run(run), gates.tokens_table, prompts=(row.prompt,))
    st.subheader("Which gate acts on which word?", anchor=False)
    st.caption(
        "This router decides for each token. Under a token stands its strongest gate, decided from "
        "the prompt up to there; [brackets] are not your words. Point at a token for all gates."
    )
    st.html(ribbon(table, names, dark=st.context.theme.type == "dark"))
    _TOKENS.show(of_run(run), options={"names": names}, prompts=(row.prompt,))


def ribbon(table: pd.DataFrame, names: list[str], *, dark: bool = False) -> str:
    """The prompt as HTML: colour and name of each token's strongest gate, opacity its value.

    Args:
        table: `tokens_table` of one prompt.
        names: Order of the subspaces; gives each its colour.
        dark: Whether the page is dark.
    """
    style = styles(ordered(names, table["subspace"]), DARK if dark else LIGHT)
    parts = []
    for _, part in table.groupby("position", sort=True):
        top = part.iloc[int(part["gate"].to_numpy().argmax())].to_dict()
        colour, strength = style[top["subspace"]].colour, min(1.0, max(0.0, top["gate"]))
        shade = f"color-mix(in srgb, {colour} {100 * strength:.0f}%, transparent)"
        every = ", ".join(f"{row.subspace} {row.gate:.3f}" for row in part.itertuples())
        title, text = html.escape(f"{top['token']}: {every}"), html.escape(str(top["token"]))
        parts.append(
            f'<span tabindex="0" title="{title}" '
            'style="display:inline-block;text-align:center;margin:2px 3px">'
            f'<span style="border-bottom:6px solid {shade};padding:0 2px">'
            f"{text if top['kind'] == 'word' else f'<i>[{text}]</i>'}</span><br>"
            f"<small>{html.escape(str(top['subspace']))} {top['gate']:.2f}</small></span>"
        )
    return f'<div aria-label="The strongest gate of each token">{"".join(parts)}</div>'


def show_words(run: Run, row: Row) -> None:
    """Which words decide: each token taken out, beside integrated gradients."""
    if not has_router(run):
        return
    names = cached.skill_names(run)
    left, right = st.columns(2, gap="large")
    with left:
        _WORD_MAP.show(of_run(run), options={"names": names}, prompts=(row.prompt,))
    with right:
        gates_of_run = (_STRONGEST, *cached.spec_of(run).names)
        chosen = recall("gate", _STRONGEST, gates_of_run)
        subspace = None if chosen == _STRONGEST else chosen
        _WORD_BARS.show(
            of_run(run),
            sentence=lambda table: say_words.sentence_words(table, subspace),
            options={"subspace": subspace, "names": names},
            prompts=(row.prompt,),
        )
        choose("gate", "Gate of this figure", gates_of_run)
