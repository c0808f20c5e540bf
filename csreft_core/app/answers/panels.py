"""Panels of the Compare page: answers side by side, what was promoted, the dose of one gate."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import streamlit as st

from csreft_core.analysis.answers.sentences import sentence_dose, sentence_next_token
from csreft_core.analysis.answers.token_changes import Piece, token_changes
from csreft_core.analysis.labels import MANUAL, THIS_RUN
from csreft_core.app.answers import manual_gates, settings
from csreft_core.app.answers.card import Card
from csreft_core.app.answers.column import (
    Column,
    Sampling,
    ask_together,
    command,
    earlier_answer,
    is_right,
    show_answer,
)
from csreft_core.app.figures.figure import Figure
from csreft_core.app.figures.source import of_run, short_path
from csreft_core.app.page import cached
from csreft_core.app.page.cached import ShownAnswer
from csreft_core.app.page.choices import choose
from csreft_core.app.page.later import Later
from csreft_core.app.page.markup import plain, verbatim
from csreft_core.app.page.prompts import trained_setting, wants_answers, warn_unknown
from csreft_core.app.page.shell import offer_training
from csreft_core.app.page.turns import TURNS
from csreft_core.app.page.widgets import help_text, offer_file
from csreft_core.base.decoding_kinds import BASE_OWN
from csreft_core.charts.answers import dose_curve, next_tokens
from csreft_core.runs.all_runs import Run
from csreft_core.skills.skill_set import Row

_tables = Later("csreft_core.analysis.answers.tables")
_decoding = Later("csreft_core.base.decoding")

_LARGEST = "the largest gate"

Answers = Sequence[tuple[Column, ShownAnswer]]
"""Columns that have answered, with what they answered."""

_NEXT_TOKEN = Figure("next_token", _tables.next_token_table, next_tokens)
_DOSE = Figure("dose", _tables.dose_table, dose_curve, sentence_dose)


@dataclass(frozen=True)
class Question:
    """Everything that the page is asked, with the columns in their order."""

    run: Run
    row: Row
    kinds: tuple[str, ...]
    sampling: Sampling
    gates: manual_gates.Gates
    columns: tuple[Column, ...]
    again: bool


def intro(run: Run | None) -> None:
    """What one is looking at."""
    if run is None:
        offer_training("There is no run to compare. Train one.")
        return
    st.markdown(
        "The same prompt, asked of the frozen base, of this run, of this run under gates of your "
        "own, and of another run."
    )


def choose_question(run: Run, row: Row) -> Question | None:
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
    auto = wants_answers(run, row)
    if not row.prompt.strip():
        st.error("The prompt is empty; write a question, or choose an example.")
        return None
    if not kinds:
        st.info("Choose at least one column.")
        return None
    if not _is_asked(run, row, auto or pressed):
        st.info("Press Ask, or Enter in the prompt: this base may need long to answer.")
        return None
    gates = manual_gates.read_gates(run, row)
    if "manual" in kinds:
        manual_gates.choose_gates(run, gates)
    columns = settings.columns_of(run, row, kinds, gates, other)
    return Question(run, row, kinds, sampling, gates, tuple(columns), pressed)


def _is_asked(run: Run, row: Row, now: bool) -> bool:
    """Whether this question was question: by the button, or by a new prompt on this page."""
    question = [str(run.path), row.prompt]
    last = st.session_state.get("compare-last")
    st.session_state["compare-last"] = question
    if now or (last is not None and last[0] == question[0] and last[1] != question[1]):
        st.session_state["compare-asked"] = question
    return st.session_state.get("compare-asked") == question


def show_answers(question: Question) -> None:
    """All answers side by side, with their differences from the first column."""
    st.subheader("What does each one answer?", help=help_text("columns"), anchor=False)
    columns, sampling = question.columns, question.sampling
    places = []
    for column, spot in zip(columns, st.columns(len(columns) or 1), strict=False):
        with spot.container(border=True, height="stretch"):
            icons = {"base": "lock", "manual": "tune", "other": "compare_arrows"}
            st.markdown(f":material/{icons.get(column.kind, 'edit')}: **{plain(column.title)}**")
            places.append(st.empty())
    missing = [
        (column, place)
        for column, place in zip(columns, places, strict=True)
        if question.again or earlier_answer(column, sampling) is None
    ]
    with TURNS.stepped_aside():
        ask_together([c for c, _ in missing], [p for _, p in missing], sampling)
    answers = [(column, earlier_answer(column, sampling)) for column in columns]
    answered = [(column, answer) for column, answer in answers if answer is not None]
    if not answered:
        return
    first = answered[0][1].tokens
    pieces = [token_changes(answer.tokens, first) for _, answer in answered]
    spots = [place for place, (_, answer) in zip(places, answers, strict=True) if answer]
    for (column, answer), marked, place in zip(answered, pieces, spots, strict=True):
        with place.container():
            show_answer(column, answer, marked)
    st.markdown(_sentence(answered))
    st.caption(_notes(len(answered), sampling, _how(question.run, sampling)))
    if any(answer.seconds is None for _, answer in answered):
        st.caption("Answers without a time are kept with the shipped run; Ask gives them anew.")
    with st.container(horizontal=True, gap="small"):
        _save(question, answered, pieces)
        _commands(answered, sampling)
    warn_unknown(question.run, question.row.prompt)


def _sentence(answered: Answers) -> str:
    """Who is right, or whether they agree."""
    texts = {answer.text.strip() for _, answer in answered}
    row = answered[0][0].row
    agree = (
        "All columns give the same answer."
        if len(texts) == 1
        else (f"{len(texts)} different answers in {len(answered)} columns.")
    )
    if len(answered) == 1:
        agree = ""
    if not row.response:
        return f"{agree} No right answer is known for this prompt.".strip()
    right = [column.title for column, answer in answered if is_right(answer.text, row)]
    who = f"Right: {plain(', '.join(right))}." if right else "None is right."
    return f"{agree} The known answer is {verbatim(row.response)}. {who}".strip()


def _how(run: Run, sampling: Sampling) -> str:
    """How the answers were decoded, in words."""
    if sampling.decoding == BASE_OWN:
        own = _decoding.settings_that_differ(cached.engine_of(run).base.own_decoding)
        return f"by the base's own settings: {_decoding.in_words(own)}"
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


def _save(
    question: Question,
    answered: Answers,
    pieces: Sequence[Sequence[Piece]],
) -> None:
    with st.popover("Save as a card", icon=":material/save:", type="tertiary", key="compare-save"):
        st.caption("Prompt, settings, gates, answers, versions and seed in one file.")
        card = card_of(question, answered, pieces)
        for label, write, name in (
            ("Offline page (HTML)", card.to_html, "comparison.html"),
            ("Markdown", card.to_markdown, "comparison.md"),
            ("JSON", card.to_json, "comparison.json"),
        ):
            offer_file(label, write, name, key=f"compare-save-{name}")


def card_of(
    question: Question,
    answered: Answers,
    pieces: Sequence[Sequence[Piece]],
) -> Card:
    """The comparison as a card."""
    provenance = question.run.config().provenance
    info = {
        "run": question.run.name,
        "base": question.run.config().base.path,
        "base fingerprint": provenance.base_fingerprint if provenance else "unknown",
        **asdict(question.sampling),
        "decoding": _how(question.run, question.sampling),
        **{name: version(name) for name in ("torch", "transformers", "streamlit")},
        "saved": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    answers = [
        {
            "title": column.title,
            "run": column.run.name if column.gates else None,
            "gate_setting": column.gates or None,
            **{name: value for name, value in asdict(answer).items() if name != "tokens"},
            "right": is_right(answer.text, question.row),
        }
        for column, answer in answered
    ]
    return Card(question.row.prompt, question.row.response, info, answers, pieces)


def _commands(answered: Answers, sampling: Sampling) -> None:
    popover = st.popover(
        "Command", icon=":material/terminal:", type="tertiary", key="compare-command"
    )
    with popover:
        for column, answer in answered:
            st.caption(plain(column.title))
            st.code(command(column, answer, sampling), language="bash", wrap_lines=True)


def show_next_token(question: Question) -> None:
    """The next token in the base and in each column."""
    others, name = (), ""
    column = next((c for c in question.columns if c.kind == "other"), None)
    # An adapter that could not answer has said so in its column.
    if column is not None and earlier_answer(column, question.sampling) is not None:
        if column.run.config().base == question.run.config().base:
            others, name = (short_path(column.run.path),), column.run.name
        else:
            st.caption(f"{plain(column.run.name)} has another base: its tokens are not those here.")
    shown = {"learned": THIS_RUN, "manual": MANUAL, "other": name}
    manual = question.gates.setting if "manual" in question.kinds else ""
    columns = [shown[kind] for kind in question.kinds if shown.get(kind)]
    if not manual:
        columns = [column for column in columns if column != MANUAL]
    _NEXT_TOKEN.show(
        of_run(question.run),
        sentence=lambda table: sentence_next_token(
            table[table["column"].isin(["base", *(columns or [THIS_RUN])])]
        ),
        options={"columns": tuple(columns or [THIS_RUN])},
        prompts=(question.row.prompt,),
        gates=trained_setting(question.run, question.row),
        manual=manual,
        others=others,
    )


def show_dose(question: Question) -> None:
    """The answer against one gate; the other gates stay at what they are."""
    gates = question.gates
    chosen = _LARGEST
    if len(gates.names) > 1:
        chosen = choose(
            "dose",
            "Gate to turn",
            (_LARGEST, *gates.names),
            help="The other gates stay: at the manual values, else at the run's own.",
        )
    _DOSE.show(
        of_run(question.run),
        prompts=(question.row.prompt,),
        gates=trained_setting(question.run, question.row),
        manual=gates.setting if "manual" in question.kinds else "",
        subspace="" if chosen == _LARGEST else chosen,
    )
