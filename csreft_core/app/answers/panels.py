"""Panels of the Compare page: answers side by side, what was promoted, the dose of one gate."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import streamlit as st

from csreft_core.analysis.answers.sentences import sentence_dose, sentence_next_token
from csreft_core.analysis.answers.tables import MANUAL, THIS, dose_table, next_token_table
from csreft_core.app.answers import settings
from csreft_core.app.answers.card import Card
from csreft_core.app.answers.column import (
    Column,
    Given,
    Sampling,
    ask_together,
    changes,
    command,
    is_right,
    kept,
    show_given,
)
from csreft_core.app.figures import views
from csreft_core.app.page import cached
from csreft_core.app.page.markup import plain, verbatim
from csreft_core.app.page.prompts import trained_setting, wants_answers
from csreft_core.app.page.state import remembered, written
from csreft_core.app.page.turns import TURNS
from csreft_core.app.page.widgets import help_text
from csreft_core.base.decoding import BASE_OWN, in_words, settings_that_differ
from csreft_core.charts.answers import dose_curve, next_tokens
from csreft_core.runs.all_runs import Run
from csreft_core.skills.skill_set import Row

_LARGEST = "the largest gate"


@dataclass(frozen=True)
class Asked:
    """Everything that the page is asked, with the columns in their order."""

    run: Run
    row: Row
    kinds: tuple[str, ...]
    sampling: Sampling
    gates: settings.Gates
    columns: tuple[Column, ...]
    again: bool


def intro(run: Run | None) -> None:
    """The title and what one is looking at."""
    st.title("Compare", anchor=False)
    if run is None:
        st.info(
            "There is no run to compare. Train one; it takes less than a minute.",
            icon=":material/info:",
        )
        st.page_link("pages/Train.py", label="Train a run", icon=":material/model_training:")
        return
    st.markdown(
        "The same prompt, asked of the frozen base, of this run, of this run under gates of your "
        "own, and of another run."
    )


def choose(run: Run, row: Row) -> Asked | None:
    """The page's controls; None where there is nothing to ask yet, after saying why."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        kinds = settings.choose_kinds()
        other = settings.choose_other(run) if "other" in kinds else None
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        sampling = settings.choose_sampling()
        pressed = st.button(
            "Ask",
            key="compare-ask",
            type="primary",
            icon=":material/play_arrow:",
            help="Asks all columns at the same time. Enter in the prompt does the same.",
        )
    auto = wants_answers(run)
    if not row.prompt.strip():
        st.error("The prompt is empty; write a question, or choose an example.")
        return None
    if not kinds:
        st.info("Choose at least one column.")
        return None
    if not _is_asked(run, row, auto or pressed):
        st.info("Press Ask, or Enter in the prompt: this base may need long to answer.")
        return None
    gates = settings.read_gates(run, row)
    if "manual" in kinds:
        settings.choose_gates(run, gates)
    columns = settings.columns_of(run, row, kinds, gates, other)
    return Asked(run, row, kinds, sampling, gates, tuple(columns), pressed)


def _is_asked(run: Run, row: Row, now: bool) -> bool:
    """Whether this question was asked: by the button, or by a new prompt on this page."""
    question = [str(run.path), row.prompt]
    last = st.session_state.get("compare-last")
    st.session_state["compare-last"] = question
    if now or (last is not None and last[0] == question[0] and last[1] != question[1]):
        st.session_state["compare-asked"] = question
    return st.session_state.get("compare-asked") == question


def show_answers(asked: Asked) -> None:
    """All answers side by side, with their differences from the first column."""
    st.subheader("What does each one answer?", help=help_text("columns"), anchor=False)
    columns, sampling = asked.columns, asked.sampling
    places = []
    for column, spot in zip(columns, st.columns(len(columns) or 1), strict=False):
        with spot.container(border=True, height="stretch"):
            icons = {"base": "lock", "manual": "tune", "other": "compare_arrows"}
            st.markdown(f":material/{icons.get(column.kind, 'edit')}: **{plain(column.title)}**")
            places.append(st.empty())
    missing = [
        (column, place)
        for column, place in zip(columns, places, strict=True)
        if asked.again or kept(column, sampling) is None
    ]
    with TURNS.stepped_aside():
        ask_together([c for c, _ in missing], [p for _, p in missing], sampling)
    given = [kept(column, sampling) for column in columns]
    there = [(c, g) for c, g in zip(columns, given, strict=True) if g is not None]
    if not there:
        return
    pieces = [changes(c, g.text, there[0][0], there[0][1].text) for c, g in there]
    spots = [place for place, g in zip(places, given, strict=True) if g is not None]
    for (column, answer), marked, place in zip(there, pieces, spots, strict=True):
        with place.container():
            show_given(column, answer, marked)
    st.markdown(_sentence(there))
    st.caption(_notes(len(there), sampling, _how(asked.run, sampling)))
    with st.container(horizontal=True, gap="small"):
        _save(asked, there, pieces)
        _commands(there, sampling)
    _warn_unknown(asked)


def _sentence(there: Sequence[tuple[Column, Given]]) -> str:
    """Who is right, or whether they agree."""
    texts = {given.text.strip() for _, given in there}
    row = there[0][0].row
    agree = (
        "All columns give the same answer."
        if len(texts) == 1
        else (f"{len(texts)} different answers in {len(there)} columns.")
    )
    if len(there) == 1:
        agree = ""
    if not row.response:
        return f"{agree} No right answer is known for this prompt.".strip()
    right = [column.title for column, given in there if is_right(given.text, row)]
    who = f"Right: {plain(', '.join(right))}." if right else "None is right."
    return f"{agree} The known answer is {verbatim(row.response)}. {who}".strip()


def _how(run: Run, sampling: Sampling) -> str:
    """How the answers were decoded, in words."""
    if sampling.decoding == BASE_OWN:
        own = settings_that_differ(cached.engine_of(run).base.own_decoding)
        return f"by the base's own settings: {in_words(own)}"
    return "greedy" if sampling.temperature == 0 else "drawn, same seed for all"


def _notes(n: int, sampling: Sampling, how: str) -> str:
    marks = (
        "Marked against the first column: +, bold and underlined: a token that it lacks; [−n]: n "
        "of its tokens are missing here. "
        if n > 1
        else ""
    )
    if sampling.decoding == BASE_OWN:
        return f"{marks}Decoded {how}."
    if sampling.temperature == 0:
        return f"{marks}Greedy: the most likely token at each step; the seed plays no role."
    return (
        f"{marks}All columns draw with the same noise (seed {sampling.seed}). That does not make "
        "them comparable token by token: once two texts differ, they go on from different texts. "
        "A difference under one seed may be chance; try several, or temperature 0."
    )


def _save(asked: Asked, there: Sequence[tuple[Column, Given]], pieces: Sequence[Sequence]) -> None:
    with st.popover("Save as a card", icon=":material/save:", type="tertiary", key="compare-save"):
        st.caption("Prompt, settings, gates, answers, versions and seed in one file.")
        card = card_of(asked, there, pieces)
        for label, make, name, mime in (
            ("Offline page (HTML)", card.to_html, "comparison.html", "text/html"),
            ("Markdown", card.to_markdown, "comparison.md", "text/markdown"),
            ("JSON", card.to_json, "comparison.json", "application/json"),
        ):
            st.download_button(
                label,
                make,
                file_name=name,
                mime=mime,
                key=f"compare-save-{name}",
                icon=":material/download:",
                on_click="ignore",
            )


def card_of(
    asked: Asked, there: Sequence[tuple[Column, Given]], pieces: Sequence[Sequence]
) -> Card:
    """The comparison as a card."""
    provenance = asked.run.config().provenance
    info = {
        "run": asked.run.name,
        "base": asked.run.config().base.path,
        "base fingerprint": provenance.base_fingerprint if provenance else "unknown",
        **asdict(asked.sampling),
        "decoding": _how(asked.run, asked.sampling),
        **{name: version(name) for name in ("torch", "transformers", "streamlit")},
        "saved": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    answers = [
        {
            "title": column.title,
            "run": column.run.name if column.gates else None,
            "gate_setting": column.gates or None,
            **asdict(given),
            "right": is_right(given.text, asked.row),
        }
        for column, given in there
    ]
    return Card(asked.row.prompt, asked.row.response, info, answers, pieces)


def _commands(there: Sequence[tuple[Column, Given]], sampling: Sampling) -> None:
    popover = st.popover(
        "Command", icon=":material/terminal:", type="tertiary", key="compare-command"
    )
    with popover:
        for column, given in there:
            st.caption(plain(column.title))
            st.code(command(column, given, sampling), language="bash", wrap_lines=True)


def _warn_unknown(asked: Asked) -> None:
    unknown = cached.unknown_words(asked.run, asked.row.prompt)
    if unknown:
        st.warning(
            f"The base has no token for {', '.join(map(verbatim, unknown[:5]))}: it cannot read "
            "that. The pocket base knows only the words of its own skill sets.",
            icon=":material/help:",
        )


def show_next_token(asked: Asked) -> None:
    """The next token in the base and in each column."""
    others, name = (), ""
    column = next((c for c in asked.columns if c.kind == "other"), None)
    # An adapter that could not answer has said so in its column.
    if column is not None and kept(column, asked.sampling) is not None:
        if column.run.config().base == asked.run.config().base:
            others, name = (views.path_of(column.run),), column.run.name
        else:
            st.caption(f"{plain(column.run.name)} has another base: its tokens are not those here.")
    shown = {"learned": THIS, "manual": MANUAL, "other": name}
    manual = asked.gates.setting if "manual" in asked.kinds else ""
    columns = [shown[kind] for kind in asked.kinds if shown.get(kind)]
    if not manual:
        columns = [column for column in columns if column != MANUAL]
    views.show(
        asked.run,
        next_token_table,
        next_tokens,
        name="next_token",
        sentence=lambda table: sentence_next_token(
            table[table["column"].isin(["base", *(columns or [THIS])])]
        ),
        options={"columns": tuple(columns or [THIS])},
        prompts=(asked.row.prompt,),
        gates=trained_setting(asked.run, asked.row),
        manual=manual,
        others=others,
    )


def show_dose(asked: Asked) -> None:
    """The answer against one gate; the other gates stay at what they are."""
    gates = asked.gates
    chosen = remembered("dose", _LARGEST, (_LARGEST, *gates.names))
    if len(gates.names) > 1:
        st.selectbox(
            "Gate to turn",
            (_LARGEST, *gates.names),
            key="dose",
            on_change=written,
            args=("dose",),
            help="The other gates stay: at the manual values, else at the run's own.",
        )
    views.show(
        asked.run,
        dose_table,
        dose_curve,
        name="dose",
        sentence=sentence_dose,
        prompts=(asked.row.prompt,),
        gates=trained_setting(asked.run, asked.row),
        manual=gates.setting if "manual" in asked.kinds else "",
        subspace="" if chosen == _LARGEST else chosen,
    )
