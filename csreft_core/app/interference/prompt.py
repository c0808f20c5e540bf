"""Panels of the Interference page on one's own prompt: all gate patterns and each gate's share."""

import streamlit as st

from csreft_core.analysis.interference import prompt as tables
from csreft_core.analysis.interference import prompt_sentences as sentences
from csreft_core.analysis.interference.composition import MAX_SUBSPACES
from csreft_core.app.figures import views
from csreft_core.app.page import cached
from csreft_core.app.page.markup import verbatim
from csreft_core.app.page.prompts import trained_setting
from csreft_core.app.page.state import forget, remembered, written
from csreft_core.charts.interference import prompt as charts
from csreft_core.runs.all_runs import Run
from csreft_core.skills.skill_set import Row

_MOST_CHARACTERS = 200


def few_subspaces(run: Run) -> bool:
    """Whether all patterns can be tried; if not, say so."""
    k = cached.adapter_of(run).n_subspaces
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
    given = trained_setting(run, row)
    known = row.response or cached.answer(run, row.prompt, given, row.skills).text
    remembered("i-answer", known)
    st.text_input(
        "The answer to score",
        key="i-answer",
        max_chars=_MOST_CHARACTERS,
        on_change=written,
        args=("i-answer",),
        help="The right answer where the data knows it, else what the model answers. Write another "
        "one to see which gates make it likely.",
    )
    return st.session_state["i-answer"].strip() or known


def show_patterns(run: Run, row: Row, answer: str) -> None:
    """The answer's probability and the next token's divergence under every pattern."""
    arguments = {"prompts": (row.prompt,), "answer": answer, "gates": trained_setting(run, row)}
    left, right = st.columns(2, gap="large")
    with left:
        views.show(
            run,
            tables.patterns_table,
            charts.pattern_answers,
            name="allpatterns",
            sentence=sentences.sentence_patterns,
            **arguments,
        )
    with right:
        views.show(
            run,
            tables.patterns_table,
            charts.pattern_divergences,
            name="divergence",
            sentence=sentences.sentence_divergence,
            **arguments,
        )


def show_shares(run: Run, row: Row, answer: str) -> None:
    """Shapley values, interactions and the tokens that rise and fall."""
    names = tuple(cached.adapter_of(run).names)
    left, right = st.columns(2, gap="large")
    with left:
        views.show(
            run,
            tables.shapley_table,
            charts.shapley_bars,
            name="shapley",
            sentence=sentences.sentence_shapley,
            options={"names": names},
            prompts=(row.prompt,),
            answer=answer,
        )
        if len(names) > 1:
            views.show(
                run,
                tables.interactions_table,
                charts.interaction_matrix,
                name="interactions",
                sentence=sentences.sentence_interactions,
                options={"names": names},
                prompts=(row.prompt,),
                answer=answer,
            )
    with right:
        views.show(
            run,
            tables.tokens_table,
            charts.token_ranks,
            name="nexttokens",
            sentence=sentences.sentence_tokens,
            prompts=(row.prompt,),
            gates=trained_setting(run, row),
        )
