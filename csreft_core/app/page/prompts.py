"""The prompt that pages ask about: one's own text or an example; it stays over a page switch."""

from collections.abc import Sequence

import streamlit as st

from csreft_core.app.page import base_loading, cached, kept, library
from csreft_core.app.page.ceilings import MOST_CHARACTERS
from csreft_core.app.page.choices import ask_text
from csreft_core.app.page.later import Later
from csreft_core.app.page.markup import plain, verbatim
from csreft_core.app.page.state import keep
from csreft_core.app.page.widgets import duration
from csreft_core.config import BaseConfig
from csreft_core.reft.gate_settings import setting_as_trained
from csreft_core.runs import queue
from csreft_core.runs.all_runs import Run
from csreft_core.skills.skill_set import TEST_SPLITS, Row, evenly

_files = Later("csreft_core.base.files")

_SHORT_S = 5.0  # a page that answers within it needs no question before


def held_out_rows(run: Run) -> list[Row]:
    """Rows that the run never trained on, one skill each; else any row with one skill."""
    rows = cached.rows_of(run)
    single = [row for row in rows if len(row.skills) == 1]
    return (
        [row for row in single if row.split == TEST_SPLITS[-1]]
        or [row for row in single if row.split in TEST_SPLITS]
        or single
        or list(rows)
    )


def examples(run: Run, per_skill: int = 1) -> tuple[Row, ...]:
    """Held-out rows with different prompts, some of each skill."""
    different = {row.prompt: row for row in held_out_rows(run)}
    return evenly(list(different.values()), per_skill)


def choose_prompt(run: Run, shown: Sequence[Row] | None = None) -> Row:
    """The prompt box with examples; gives the prompt with what is known of it.

    Args:
        run: Its data gives the examples.
        shown: Other examples.
    """
    shown = examples(run) if shown is None else shown
    prompt = ask_text(
        "prompt",
        "Your prompt",
        shown[0].prompt if shown else "",
        max_chars=MOST_CHARACTERS,
        help="Press Enter to ask. The address of this page keeps the prompt.",
    )
    with st.container(horizontal=True, gap="small"):
        names = ["-".join(row.skills) for row in shown]
        for place, (name, row) in enumerate(zip(names, shown, strict=True)):
            st.button(
                plain(row.prompt),
                key=f"example-{name}" + f"-{place}" * (names.count(name) > 1),
                help=f"Skill: {plain(' and '.join(row.skills)) or 'not labelled'}. Held out of "
                "training.",
                on_click=keep,
                args=("prompt", row.prompt),
                type="tertiary",
                icon=":material/subdirectory_arrow_right:",
            )
    known = {row.prompt: row for row in reversed(cached.rows_of(run))}
    return known.get(prompt, Row((), prompt, "", ""))


def can_answer(run: Run) -> bool:
    """Whether the run has an adapter yet; if not, say where to watch it."""
    if run.adapter_path.exists():
        return True
    st.info(
        f"Run {verbatim(run.name)} has no trained adapter yet (it is {queue.standing(run).state}). "
        "Watch it on the Train page, or choose another run on the left.",
        icon=":material/hourglass_top:",
    )
    link = {"run": library.run_id(run)}
    st.page_link(
        "pages/Train.py", label="Watch it", icon=":material/model_training:", query_params=link
    )
    return False


def wants_answers(run: Run, row: Row | None = None) -> bool:
    """Whether the run's base is asked: a fast one at once, a slow one once somebody has said so.

    Else the page says what stands in the way and how long it takes, with one button. What is kept
    with a shipped run needs no base.

    Args:
        run: Which run.
        row: The prompt, where the page has one; its examples are kept.
    """
    kept_prompts = {example.prompt for example in examples(run)}
    if kept.is_kept(run) and (row is None or row.prompt in kept_prompts):
        return True
    base = run.config().base
    held = cached.held_base(base)
    if held is None and base_loading.loads_at_once(base):
        return True
    if held is None:
        st.info(
            f"The base of this run, {verbatim(base.path)}, is not in memory{_size(base)}. Once it "
            "is, this page says how long an answer takes, and asks by itself where that is short.",
            icon=":material/hourglass_top:",
        )
        base_loading.show(base)
        return False
    asked = st.session_state.setdefault("asked-bases", [])
    if held.speed.answer_s <= _SHORT_S or str(base) in asked:
        return True
    st.info(
        f"The base of this run, {verbatim(base.path)}, takes about "
        f"{duration(held.speed.answer_s)} for a short answer on this machine, and longer for what "
        "needs many prompts.",
        icon=":material/hourglass_top:",
    )
    st.button(
        "Ask it all the same",
        key="ask-slow",
        type="primary",
        icon=":material/play_arrow:",
        on_click=asked.append,
        args=(str(base),),
        help="From now on the pages ask this base at every change, until you leave.",
    )
    return False


def _size(base: BaseConfig) -> str:
    n = _files.stored_bytes(base)
    return "" if n is None else f"; its weights have {n / 1e6:.0f} MB"


def warn_unknown(run: Run, prompt: str) -> None:
    """Name the words of a prompt that the base cannot read, if there are any."""
    unknown = cached.unknown_words(run, prompt)
    if unknown:
        st.warning(
            f"The base {verbatim(run.config().base.path)} has no token for "
            f"{', '.join(map(verbatim, unknown[:5]))}: it cannot read that. It knows whole words "
            "only, such as those of its own skill sets.",
            icon=":material/help:",
        )


def trained_setting(run: Run, row: Row) -> str:
    """The gates that the run was trained with; oracle gates where the skill is known."""
    return setting_as_trained(run.config().router.gates, cached.skill_names(run), row.skills)
