"""Panels of the Start page: one sentence, its gates, its answers, and the paper's router."""

import streamlit as st

from csreft_core.analysis.gates import gate_range, sentence_gate_range, sentence_prompt_gates
from csreft_core.analysis.training import last_scores
from csreft_core.charts.gates import gate_bars, gates_over_prompts
from csreft_core.runs import Run
from csreft_core.skills import TEST_SPLITS, Row
from csreft_core.ui import cached, library
from csreft_core.ui.state import MOST_CHARACTERS, keep, remembered, written
from csreft_core.ui.widgets import help_text, show_chart

_PER_SKILL = 8


def intro(run: Run | None) -> None:
    """The title and what one is looking at."""
    st.title("Watch a router decide", anchor=False)
    if run is None:
        st.info(
            "There is no finished run to show: the shipped examples are missing from "
            "`assets/examples`. Train a run of your own; it takes less than a minute.",
            icon=":material/info:",
        )
        st.page_link("pages/Train.py", label="Train a run", icon=":material/model_training:")
        return
    names = cached.skill_names(run)
    st.markdown(
        "A small language model is frozen. Beside it, small edits of its hidden state were "
        f"trained for {len(names)} skills ({', '.join(names)}), and a **router** that reads the "
        "prompt and sets a **gate** for each edit. Change the sentence and see what happens."
    )


def can_answer(run: Run) -> bool:
    """Whether the run has an adapter yet; if not, say where to watch it."""
    if run.adapter_path.exists():
        return True
    st.info(
        f"Run {run.name!r} has no trained adapter yet (it is {run.status().state}). Watch it on "
        "the Train page, or choose another run on the left.",
        icon=":material/hourglass_top:",
    )
    link = {"run": library.run_id(run)}
    st.page_link(
        "pages/Train.py", label="Watch it", icon=":material/model_training:", query_params=link
    )
    return False


def _tests(run: Run) -> list[Row]:
    """Rows that the run never trained on, one skill each; else any row with one skill."""
    rows = cached.rows_of(run)
    single = [row for row in rows if len(row.skills) == 1]
    return (
        [row for row in single if row.split == TEST_SPLITS[-1]]
        or [row for row in single if row.split in TEST_SPLITS]
        or single
        or list(rows)
    )


def _per_skill(rows: list[Row], n: int) -> list[Row]:
    """The first n rows with different prompts of each skill."""
    groups: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        group = groups.setdefault(row.skills, {})
        if len(group) < n:
            group.setdefault(row.prompt, row)
    return [row for group in groups.values() for row in group.values()]


def choose_prompt(run: Run) -> Row:
    """The prompt box with examples; gives the prompt with what is known of it."""
    examples = _per_skill(_tests(run), 1)
    prompt = remembered("prompt", examples[0].prompt if examples else "")
    st.text_input(
        "Your prompt",
        key="prompt",
        max_chars=MOST_CHARACTERS,
        on_change=written,
        args=("prompt",),
        help="Press Enter to ask. The address of this page keeps the prompt.",
    )
    with st.container(horizontal=True, gap="small"):
        for row in examples:
            st.button(
                row.prompt,
                key=f"example-{'-'.join(row.skills)}",
                help=f"Skill: {' and '.join(row.skills) or 'not labelled'}. Held out of training.",
                on_click=keep,
                args=("prompt", row.prompt),
                type="tertiary",
                icon=":material/subdirectory_arrow_right:",
            )
    known = {row.prompt: row for row in reversed(cached.rows_of(run))}
    return known.get(prompt, Row((), prompt, "", ""))


def wants_answers(run: Run) -> bool:
    """The pocket base answers at once; a larger one when asked to."""
    if run.config().base.path == "pocket":
        return True
    return st.toggle(
        "Ask the model at every change", key="autorun", persist_state="session",
        help=f"The base of this run, {run.config().base.path}, may need long to load.",
    )  # fmt: skip


def show_gates(run: Run, row: Row) -> None:
    """The gates of the prompt as bars."""
    gates = _setting(run, row)
    table = cached.gates_of(run, [row.prompt], ["+".join(row.skills)], gates)
    threshold = run.config().router.threshold
    fixed = "" if gates == "learned" and cached.adapter_of(run).router is not None else (
        f" This run has no router; its gates are {run.config().router.gates}."
    )  # fmt: skip
    show_chart(
        gate_bars,
        table,
        cached.skill_names(run),
        name="gates",
        threshold=threshold,
        sentence=sentence_prompt_gates(table, threshold) + fixed,
    )


def _setting(run: Run, row: Row) -> str:
    """The gates that the run was trained with; oracle gates where the skill is known."""
    if run.config().router.gates != "oracle":
        return "learned"
    return "oracle" if row.skills else "uniform"


def show_answers(run: Run, row: Row) -> None:
    """The base's answer and the adapter's, side by side."""
    st.subheader("What does the model answer?", help=help_text("answers"), anchor=False)
    base = cached.base_answer(run, row.prompt)
    edited = cached.answer(run, row.prompt, _setting(run, row), "+".join(row.skills))
    for title, text, icon in (
        ("Without the adapter", base.text, ":material/lock:"),
        ("With the adapter", edited.text, ":material/edit:"),
    ):
        with st.container(border=True):
            st.caption(f"{icon} {title}{_mark(text, row)}")
            st.code(text or "(an empty answer)", language=None, wrap_lines=True)
    st.markdown(_sentence_answers(base.text, edited.text, row))
    unknown = cached.unknown_words(run, row.prompt)
    if unknown:
        st.warning(
            f"The base has no token for {', '.join(repr(w) for w in unknown[:5])}: it cannot read "
            "that. The pocket base knows only the words of its own skill sets.",
            icon=":material/help:",
        )


def _mark(text: str, row: Row) -> str:
    if not row.response:
        return ""
    return " — right" if text.strip() == row.response.strip() else " — wrong"


def _sentence_answers(base: str, edited: str, row: Row) -> str:
    change = "The adapter changes the answer." if base != edited else (
        "The adapter leaves the answer as it is."
    )  # fmt: skip
    if not row.response or edited.strip() == row.response.strip():
        return change
    return f"{change} Right would be: `{row.response}`."


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
    rows = _per_skill(_tests(run), _PER_SKILL)
    table = cached.gates_of(run, [r.prompt for r in rows], ["+".join(r.skills) for r in rows])
    reads = {"first_token": "first token", "last_prompt_token": "last token"}
    router = reads.get(run.config().router.input, "mean of the prompt")
    largest = gate_range(table)["range"].max()
    st.metric(
        f"Largest max - min of a gate ({run.name})",
        f"{largest:.3f}" if largest > 1e-3 or largest == 0 else f"{largest:.1e}",
        help=help_text("range"),
    )
    show_chart(
        gates_over_prompts,
        table,
        cached.skill_names(run),
        name=f"range-{run.name}",
        heading=f"Router on the {router}",
        sentence=f"{sentence_gate_range(table)} {_how_right(run)}",
    )


def _how_right(run: Run) -> str:
    scores = last_scores(cached.metrics_of(run))["exact_match"]
    return (
        f"In training, {scores.mean():.1%} of its validation answers were right."
        if len(scores)
        else ""
    )


def ways_onward(run: Run | None) -> None:
    """Three ways on."""
    st.header("Go on", anchor=False, divider="gray")
    link = {"run": library.run_id(run)} if run else None
    ways = (
        ("Watch a router decide", "Write your own sentence in the box above.", "app.py", "Start"),
        ("Train your own", "Four skills, under a minute on a laptop.", "pages/Train.py", "Train"),
        ("Your runs", "Compare two runs, download or delete them.", "pages/Runs.py", "Runs"),
    )
    icons = (":material/alt_route:", ":material/model_training:", ":material/folder_open:")
    with st.grid(3, min_column_width=240):
        for (title, text, path, label), icon in zip(ways, icons, strict=True):
            with st.container(border=True):
                st.markdown(f"**{title}**")
                st.caption(text)
                st.page_link(path, label=f"Open {label}", icon=icon, query_params=link)
