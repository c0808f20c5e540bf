"""Panels of the Interference page on held-out prompts: gate settings, pairs, regret, overlap."""

from pathlib import Path
from typing import Any

import streamlit as st

from csreft_core.analysis.interference import sentences, tables
from csreft_core.app.figures import views
from csreft_core.app.page import cached, library
from csreft_core.app.page.markup import plain, verbatim
from csreft_core.app.page.state import remembered, written
from csreft_core.charts.interference import figures as charts
from csreft_core.runs.all_runs import Run

SETTINGS, PAIRS = "Gate settings", "Pairs of gates"
OWN_PROMPT, ONE_SKILL = "Your own prompt", "Training on one skill"
PARTS = (SETTINGS, PAIRS, OWN_PROMPT, ONE_SKILL)
_ROWS = ("10", "30", "60", "all")
_MEASURES = {
    "I_on": "I_on: beside own",
    "S": "S: alone",
    "A": "A: closed",
}
_MOST_POOLED = 8


def intro(run: Run | None) -> None:
    """What the page shows, or what to do where there is no run."""
    if run is None:
        st.info(
            "There is no run to look at: the shipped examples are missing from `assets/examples`. "
            "Train a run of your own; it takes less than a minute.",
            icon=":material/info:",
        )
        st.page_link("pages/Train.py", label="Train a run", icon=":material/model_training:")
        return
    st.markdown(
        "Each subspace was trained for one skill. Here you see what it does to the others: loss "
        "with a gate open minus loss with it closed, on prompts that were held out of training. "
        "**Blue helps, red hurts, 0 means nothing happens.**"
    )


def n_subspaces(run: Run) -> int:
    """k of the run's adapter."""
    return cached.adapter_of(run).n_subspaces


def several_subspaces(run: Run) -> bool:
    """Whether there are pairs to compare; if not, say which figures need them.

    Raises:
        AdapterError: a damaged adapter, or one of another base; so the page says it once.
    """
    if cached.subject_of(run).adapter.n_subspaces > 1:
        return True
    st.info(
        f"Run {verbatim(run.name)} has one subspace for all skills. Pairs of gates, interactions, "
        "overlap and the cost of routing need several: choose a run such as `recommended-0` on the "
        "left. The other figures work.",
        icon=":material/looks_one:",
    )
    return False


def choose_rows(run: Run) -> dict[str, Any]:
    """The controls for the prompts that are measured; gives `split` and `per_skill`."""
    skill_set = cached.skill_set_of(run)
    tested = any(split.startswith("test_") for split in skill_set.splits)
    default = (
        "test"
        if any(row.split in _PLAIN_TESTS for row in skill_set.rows)
        else (skill_set.splits[0])
    )
    splits = [*(["test"] if default == "test" and tested else []), *skill_set.splits]
    remembered("i-split", default, splits)
    remembered("i-rows", "30", _ROWS)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Prompts of the split",
            splits,
            key="i-split",
            on_change=written,
            args=("i-split",),
            width=220,
            help="`test` joins the three tests of single skills.",
        )
        st.segmented_control(
            "Prompts of each skill",
            _ROWS,
            key="i-rows",
            on_change=written,
            args=("i-rows",),
            required=True,
            help="More prompts give narrower intervals and take longer.",
        )
    rows = st.session_state["i-rows"]
    return {
        "split": st.session_state["i-split"],
        "per_skill": None if rows == "all" else int(rows),
    }


_PLAIN_TESTS = ("test_items", "test_paraphrases", "test_both")


def control_of(run: Run) -> Run | None:
    """A shared LoReFT of the same total rank k r on the same data; the same seed if there is one.

    None for a run that has one subspace itself.
    """
    config, k = run.config(), n_subspaces(run)
    if k == 1:
        return None
    wanted = (
        config.base,
        config.data,
        config.adapter.layers,
        config.adapter.positions,
        1,
        k * config.adapter.rank,
    )
    found = []
    for other in library.all_runs().values():
        theirs = other.config()
        a = theirs.adapter
        if (theirs.base, theirs.data, a.layers, a.positions, a.n_subspaces, a.rank) == wanted and (
            other.adapter_path.exists()
        ):
            found.append((theirs.train.seed != config.train.seed, other))
    return min(found, key=lambda pair: pair[0])[1] if found else None


def path_argument(run: Run) -> str:
    """The run's folder as a table takes it: short where that leads there from here."""
    short = views.path_of(run)
    return short if Path(short).is_dir() else str(run.path.absolute())


def _others(run: Run) -> tuple[str, ...]:
    control = control_of(run)
    return () if control is None else (path_argument(control),)


def show_settings(run: Run, rows: dict[str, Any]) -> None:
    """The matrix of skills and gate settings, with the shared LoReFT as control."""
    others = _others(run)
    views.show(
        run,
        tables.settings_table,
        charts.setting_matrix,
        name="gatesettings",
        sentence=sentences.sentence_settings,
        options={"names": tuple(cached.skill_names(run))},
        **rows,
        others=others,
    )
    k = n_subspaces(run)
    if not others and k > 1:
        rank = k * run.config().adapter.rank
        st.caption(
            f"No control row: there is no shared LoReFT of rank {rank} on the same data. Train one "
            f"on the Train page: preset `loreft`, rank {rank}."
        )


def show_cell(run: Run, rows: dict[str, Any]) -> None:
    """Two lists choose a cell of the matrix; the prompts behind it are drawn."""
    others = _others(run)
    table = cached.table(tables.settings_table, run, **rows, others=others)
    settings = [s for s in dict.fromkeys(table["setting"]) if s != "off"]
    skills = list(dict.fromkeys(table["skill"]))
    wrong = table[table["setting"].isin(settings) & (table["kind"] == "run")]
    worst = wrong.nlargest(1, "change").iloc[0]
    remembered("i-gates", worst["setting"], settings)
    remembered("i-skill", worst["skill"], skills)
    with st.container(horizontal=True):
        st.selectbox(
            "Row of the matrix",
            settings,
            key="i-gates",
            on_change=written,
            args=("i-gates",),
            format_func=sentences.setting_label,
            width=170,
            help="The gate setting. The choice at the start is the cell that is hurt most.",
        )
        st.selectbox(
            "Column",
            skills,
            key="i-skill",
            on_change=written,
            args=("i-skill",),
            width=170,
            help="The skill whose prompts are shown.",
        )
    views.show(
        run,
        tables.examples_table,
        charts.example_shifts,
        name="cellexamples",
        sentence=sentences.sentence_examples,
        skill=st.session_state["i-skill"],
        gates=st.session_state["i-gates"],
        **rows,
        others=others,
    )


def show_prompts(run: Run, rows: dict[str, Any]) -> None:
    """The prompts of the chosen cell to read, with the right answer and the one given."""
    found = cached.table(
        tables.examples_table,
        run,
        skill=st.session_state["i-skill"],
        gates=st.session_state["i-gates"],
        **rows,
        others=_others(run),
    )
    shown = found[["prompt", "response", "answer", "loss_before", "loss_after"]].rename(
        columns={
            "response": "right answer",
            "answer": "answer given",
            "loss_before": "loss before",
            "loss_after": "loss after",
        }
    )
    numbers = {
        name: st.column_config.NumberColumn(format="%.3f") for name in ("loss before", "loss after")
    }
    st.dataframe(shown, hide_index=True, height=38 + 35 * len(shown), column_config=numbers)


def show_pairs(run: Run, rows: dict[str, Any]) -> None:
    """The matrix of one gate against each skill, under the measure of one's choice."""
    labelled = set(cached.adapter_of(run).names) & set(cached.skill_names(run))
    remembered("i-measure", "I_on" if labelled else "S", _MEASURES)
    st.segmented_control(
        "Measure",
        list(_MEASURES),
        key="i-measure",
        on_change=written,
        args=("i-measure",),
        format_func=lambda name: _MEASURES[name],
        required=True,
        help="What is done to gate i while the loss of skill j is measured.",
    )
    remembered("i-unit", "nats", ("nats", "relative"))
    st.segmented_control(
        "Unit",
        ("nats", "relative"),
        key="i-unit",
        on_change=written,
        args=("i-unit",),
        required=True,
        help="Relative divides by the skill's loss before the change.",
        format_func=lambda name: "nats a token" if name == "nats" else "relative to the loss",
    )
    views.show(
        run,
        tables.pairs_table,
        charts.pair_matrix,
        name="gatepairs",
        sentence=sentences.sentence_pairs,
        options={
            "names": tuple(cached.skill_names(run)),
            "relative": st.session_state["i-unit"] == "relative",
        },
        measure=st.session_state["i-measure"],
        **rows,
    )


def show_bottleneck(run: Run, rows: dict[str, Any]) -> None:
    """Learned gates beside oracle gates; a word where the run has only one of the two."""
    others = _others(run)
    table = cached.table(tables.settings_table, run, **rows, others=others)
    if not {"learned", "oracle"} <= set(table["setting"]):
        st.info(plain(sentences.sentence_bottleneck(table)), icon=":material/info:")
        return
    views.show(
        run,
        tables.settings_table,
        charts.bottleneck_bars,
        name="bottleneck",
        sentence=sentences.sentence_bottleneck,
        options={"names": tuple(cached.skill_names(run))},
        **rows,
        others=others,
    )


def show_regret(run: Run, rows: dict[str, Any]) -> None:
    """All 2^k patterns on the held-out prompts, when asked for."""
    k = n_subspaces(run)
    panel = st.expander(
        f"Regret: the gates against the best of all {2**k} patterns of each prompt",
        icon=":material/emoji_events:",
        key="i-regret",
        on_change="rerun",
    )
    if not panel.open:
        return
    with panel:
        views.show(
            run,
            tables.regret_table,
            charts.regret_bars,
            name="patternregret",
            sentence=sentences.sentence_regret,
            options={"names": tuple(cached.skill_names(run))},
            **rows,
        )


def show_overlap(run: Run, rows: dict[str, Any]) -> None:
    """Overlap against interference, of this run or pooled, when asked for."""
    panel = st.expander(
        "Overlap against interference, pair by pair",
        icon=":material/scatter_plot:",
        key="i-overlap",
        on_change="rerun",
    )
    if not panel.open:
        return
    with panel:
        poolable = _poolable(run)
        remembered("i-pool", "this run", ("this run", "pooled"))
        st.segmented_control(
            "Runs",
            ("this run", "pooled"),
            key="i-pool",
            on_change=written,
            args=("i-pool",),
            required=True,
            disabled=not poolable,
            format_func=lambda name: (
                name if name == "this run" else (f"pooled with {len(poolable)} other runs")
            ),
            help="Other runs on the same base and data whose subspaces are named after skills.",
        )
        pooled = st.session_state["i-pool"] == "pooled"
        views.show(
            run,
            tables.overlap_table,
            charts.overlap_scatter,
            name="overlapscatter",
            sentence=sentences.sentence_overlap,
            **rows,
            others=tuple(map(path_argument, poolable)) if pooled else (),
        )


def _poolable(run: Run) -> list[Run]:
    config, k = run.config(), n_subspaces(run)
    fitting = [
        other
        for other in library.all_runs().values()
        if other.path != run.path
        and other.adapter_path.exists()
        and (other.config().base, other.config().data) == (config.base, config.data)
        and other.config().adapter.n_subspaces in (None, k)
    ]
    return fitting[:_MOST_POOLED]
