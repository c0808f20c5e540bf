"""Panels of the Interference page on one's own prompt: all gate patterns and each gate's share."""

import streamlit as st

from csreft_core.analysis.interference import prompt_sentences as sentences
from csreft_core.analysis.interference.limits import MAX_SUBSPACES
from csreft_core.app.figures.figure import Figure
from csreft_core.app.figures.source import of_run
from csreft_core.app.page import cached
from csreft_core.app.page.choices import ask_text
from csreft_core.app.page.later import Later
from csreft_core.app.page.markup import verbatim
from csreft_core.app.page.prompts import trained_setting
from csreft_core.app.page.state import forget
from csreft_core.charts.interference import prompt as charts
from csreft_core.runs.all_runs import Run
from csreft_core.skills.skill_set import Row

tables = Later("csreft_core.analysis.interference.prompt")

_MOST_CHARACTERS = 200

_PATTERNS = Figure(
    "allpatterns", tables.patterns_table, charts.pattern_answers, sentences.sentence_patterns
)
_DIVERGENCES = Figure(
    "divergence", tables.patterns_table, charts.pattern_divergences, sentences.sentence_divergence
)
_SHAPLEY = Figure("shapley", tables.shapley_table, charts.shapley_bars, sentences.sentence_shapley)
_INTERACTIONS = Figure(
    "interactions",
    tables.interactions_table,
    charts.interaction_matrix,
    sentences.sentence_interactions,
)
_TOKENS = Figure("nexttokens", tables.tokens_table, charts.token_ranks, sentences.sentence_tokens)


def few_subspaces(run: Run) -> bool:
    """Whether all patterns can be tried; if not, say so."""
    k = len(cached.spec_of(run).names)
    if k <= MAX_SUBSPACES:
        return True
    st.info(
        f"Run {verbatim(run.name)} has {k} subspaces, so 2^{k} = {2**k} patterns of gates. All "
        f"patterns are tried up to {MAX_SUBSPACES} subspaces.",
        icon=":material/info:",
    )
    return False


def choose_answer(run: Run, row: Row) -> str:
    """The answer whose probability is asked for: the known one, else the model's own, or yours."""
    if st.session_state.get("i-answered") not in (None, row.prompt):
        forget("i-answer")  # it was an answer to another prompt
    st.session_state["i-answered"] = row.prompt
    gates = trained_setting(run, row)
    known = row.response or cached.answer(run, row.prompt, gates, row.skills).text
    answer = ask_text(
        "i-answer",
        "The answer to score",
        known,
        max_chars=_MOST_CHARACTERS,
        help="The right answer where the data knows it, else what the model answers. Write another "
        "one to see which gates make it likely.",
    )
    return answer.strip() or known


def show_patterns(run: Run, row: Row, answer: str) -> None:
    """The answer's probability and the next token's divergence under every pattern."""
    arguments = {"prompts": (row.prompt,), "answer": answer, "gates": trained_setting(run, row)}
    left, right = st.columns(2, gap="large")
    with left:
        _PATTERNS.show(of_run(run), **arguments)
    with right:
        _DIVERGENCES.show(of_run(run), **arguments)


def show_shares(run: Run, row: Row, answer: str) -> None:
    """Shapley values, interactions and the tokens that rise and fall."""
    names = cached.spec_of(run).names
    arguments = {"prompts": (row.prompt,), "answer": answer}
    left, right = st.columns(2, gap="large")
    with left:
        _SHAPLEY.show(of_run(run), options={"names": names}, **arguments)
        if len(names) > 1:
            _INTERACTIONS.show(of_run(run), options={"names": names}, **arguments)
    with right:
        _TOKENS.show(of_run(run), prompts=(row.prompt,), gates=trained_setting(run, row))
