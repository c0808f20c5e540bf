"""Panels of the Interference page on held-out prompts: gate settings, pairs, regret, overlap."""

from typing import Any

import streamlit as st

from csreft_core.analysis.interference import sentences
from csreft_core.app.figures.figure import Figure, table_of
from csreft_core.app.figures.source import of_run, short_path
from csreft_core.app.page import cached, library
from csreft_core.app.page.choices import SEGMENTS, choose
from csreft_core.app.page.later import Later
from csreft_core.app.page.markup import plain, verbatim
from csreft_core.app.page.parts import fold
from csreft_core.app.page.shell import offer_training
from csreft_core.charts.interference import figures as charts
from csreft_core.runs.all_runs import Run

tables = Later("csreft_core.analysis.interference.tables")

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
_PLAIN_TESTS = ("test_items", "test_paraphrases", "test_both")

_SETTINGS = Figure(
    "gatesettings", tables.settings_table, charts.setting_matrix, sentences.sentence_settings
)
_EXAMPLES = Figure(
    "cellexamples", tables.examples_table, charts.example_shifts, sentences.sentence_examples
)
_PAIRS = Figure("gatepairs", tables.pairs_table, charts.pair_matrix, sentences.sentence_pairs)
_BOTTLENECK = Figure(
    "bottleneck", tables.settings_table, charts.bottleneck_bars, sentences.sentence_bottleneck
)
_REGRET = Figure(
    "patternregret", tables.regret_table, charts.regret_bars, sentences.sentence_regret
)
_OVERLAP = Figure(
    "overlapscatter", tables.overlap_table, charts.overlap_scatter, sentences.sentence_overlap
)


def intro(run: Run | None) -> None:
    """What the page shows, or what to do where there is no run."""
    if run is None:
        offer_training(
            "There is no run to look at: the shipped examples are missing from `assets/examples`. "
            "Train a run of your own."
        )
        return
    st.markdown(
        "Each subspace was trained for one skill. Here you see what it does to the others: loss "
        "with a gate open minus loss with it closed, on prompts that were held out of training. "
        "**Blue helps, red hurts, 0 means nothing happens.**"
    )


def n_subspaces(run: Run) -> int:
    """k of the run's adapter."""
    return len(cached.spec_of(run).names)


def several_subspaces(run: Run) -> bool:
    """Whether there are pairs to compare; if not, say which figures need them.

    Raises:
        AdapterError: a damaged adapter, or one of another base; so the page says it once.
    """
    if len(cached.spec_on_its_base(run).names) > 1:
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
    has_tests = any(row.split in _PLAIN_TESTS for row in skill_set.rows)
    tested = any(split.startswith("test_") for split in skill_set.splits)
    splits = [*["test"] * (has_tests and tested), *skill_set.splits]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        split = choose(
            "i-split",
            "Prompts of the split",
            splits,
            "test" if has_tests else skill_set.splits[0],
            width=220,
            help="`test` joins the three tests of single skills.",
        )
        rows = choose(
            "i-rows",
            "Prompts of each skill",
            _ROWS,
            "30",
            widget=SEGMENTS,
            help="More prompts give narrower intervals and take longer.",
        )
    return {"split": split, "per_skill": None if rows == "all" else int(rows)}


def control_of(run: Run) -> Run | None:
    """A shared LoReFT of the same total rank k r on the same data; the same seed if there is one.

    None for a run that has one subspace itself.
    """
    config, k = run.config(), n_subspaces(run)
    if k == 1:
        return None
    rank = k * config.adapter.rank
    wanted = (config.base, config.data, config.adapter.layers, config.adapter.positions, 1, rank)
    controls = []
    for other in library.other_runs(run).values():
        theirs = other.config()
        a = theirs.adapter
        if (theirs.base, theirs.data, a.layers, a.positions, a.n_subspaces, a.rank) == wanted:
            controls.append((theirs.train.seed != config.train.seed, other))
    return min(controls, key=lambda pair: pair[0])[1] if controls else None


def _names(run: Run) -> dict[str, Any]:
    """For charts: the skills in their order, which gives each its colour."""
    return {"names": tuple(cached.skill_names(run))}


def _others(run: Run) -> tuple[str, ...]:
    control = control_of(run)
    return () if control is None else (short_path(control.path),)


def show_settings(run: Run, rows: dict[str, Any]) -> None:
    """The matrix of skills and gate settings, with the shared LoReFT as control."""
    others = _others(run)
    _SETTINGS.show(of_run(run), options=_names(run), **rows, others=others)
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
    table = table_of(of_run(run), tables.settings_table, **rows, others=others)
    settings = [s for s in dict.fromkeys(table["setting"]) if s != "off"]
    wrong = table[table["setting"].isin(settings) & (table["kind"] == "run")]
    worst = wrong.nlargest(1, "change").iloc[0]
    with st.container(horizontal=True):
        gates = choose(
            "i-gates",
            "Row of the matrix",
            settings,
            worst["setting"],
            format_func=sentences.setting_label,
            width=170,
            help="The gate setting. The choice at the start is the cell that is hurt most.",
        )
        skill = choose(
            "i-skill",
            "Column",
            list(dict.fromkeys(table["skill"])),
            worst["skill"],
            width=170,
            help="The skill whose prompts are shown.",
        )
    _EXAMPLES.show(of_run(run), skill=skill, gates=gates, **rows, others=others)


def show_prompts(run: Run, rows: dict[str, Any]) -> None:
    """The prompts of the chosen cell to read, with the right answer and the one given."""
    table = table_of(
        of_run(run),
        tables.examples_table,
        skill=st.session_state["i-skill"],
        gates=st.session_state["i-gates"],
        **rows,
        others=_others(run),
    )
    shown = table[["prompt", "response", "answer", "loss_before", "loss_after"]].rename(
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
    labelled = set(cached.spec_of(run).names) & set(cached.skill_names(run))
    measure = choose(
        "i-measure",
        "Measure",
        _MEASURES,
        "I_on" if labelled else "S",
        widget=SEGMENTS,
        help="What is done to gate i while the loss of skill j is measured.",
    )
    relative = choose_unit("i-unit", "Relative divides by the skill's loss before the change.")
    options = {**_names(run), "relative": relative}
    _PAIRS.show(of_run(run), options=options, measure=measure, **rows)


def choose_unit(name: str, help: str) -> bool:
    """Whether a change of the loss is shown relative to the loss, instead of in nats a token."""
    units = {"nats": "nats a token", "relative": "relative to the loss"}
    return choose(name, "Unit", units, widget=SEGMENTS, help=help) == "relative"


def show_bottleneck(run: Run, rows: dict[str, Any]) -> None:
    """Learned gates beside oracle gates; a word where the run has only one of the two."""
    others = _others(run)
    table = table_of(of_run(run), tables.settings_table, **rows, others=others)
    if not {"learned", "oracle"} <= set(table["setting"]):
        st.info(plain(sentences.sentence_bottleneck(table)), icon=":material/info:")
        return
    _BOTTLENECK.show(of_run(run), options=_names(run), **rows, others=others)


def show_regret(run: Run, rows: dict[str, Any]) -> None:
    """All 2^k patterns on the held-out prompts, when asked for."""
    n = 2 ** n_subspaces(run)
    fold(
        f"Regret: the gates against the best of all {n} patterns of each prompt",
        lambda: _REGRET.show(of_run(run), options=_names(run), **rows),
        key="i-regret",
        icon=":material/emoji_events:",
    )


def show_overlap(run: Run, rows: dict[str, Any]) -> None:
    """Overlap against interference, of this run or pooled, when asked for."""
    fold(
        "Overlap against interference, pair by pair",
        lambda: _show_overlap(run, rows),
        key="i-overlap",
        icon=":material/scatter_plot:",
    )


def _show_overlap(run: Run, rows: dict[str, Any]) -> None:
    poolable = _poolable(run)
    pool = choose(
        "i-pool",
        "Runs",
        {"this run": "this run", "pooled": f"pooled with {len(poolable)} other runs"},
        widget=SEGMENTS,
        disabled=not poolable,
        help="Other runs on the same base and data whose subspaces are named after skills.",
    )
    others = tuple(short_path(other.path) for other in poolable) if pool == "pooled" else ()
    _OVERLAP.show(of_run(run), **rows, others=others)


def _poolable(run: Run) -> list[Run]:
    config, k = run.config(), n_subspaces(run)
    fitting = [
        other
        for other in library.other_runs(run).values()
        if (other.config().base, other.config().data) == (config.base, config.data)
        and other.config().adapter.n_subspaces in (None, k)
    ]
    return fitting[:_MOST_POOLED]
