"""Panels of the Methods page: which comparison, quality, interference, forgetting, cost, table."""

from typing import Any

import pandas as pd
import streamlit as st

from csreft_core.analysis.methods import sentences, tables
from csreft_core.app.figures.figure import Figure, table_of
from csreft_core.app.figures.shown_code import command
from csreft_core.app.figures.source import JUDGED, short_path
from csreft_core.app.page import library
from csreft_core.app.page.choices import SEGMENTS, choose
from csreft_core.app.page.markup import plain
from csreft_core.app.page.state import keep, recall
from csreft_core.app.page.widgets import show_data
from csreft_core.charts import methods as charts
from csreft_core.comparison.folder import JOINT, UNTRAINED, Comparison

QUALITY, INTERFERENCE, SEQUENCE, COST, TABLE = (
    "Quality",
    "Interference",
    "One skill after another",
    "Cost",
    "Table",
)
PARTS = (QUALITY, INTERFERENCE, SEQUENCE, COST, TABLE)

_QUALITY = {"exact_match": "exact match", "loss": "loss", "two_skills": "two skills at once"}
_COSTS = {"train_s": "training time", "peak_bytes": "memory", "tokens_per_s": "speed of answers"}
_STARTS = {JOINT: "trained on all skills", UNTRAINED: "untrained"}
_UNITS = {"exact": "exact match", "nats": "nats a token"}
_HARMS = {
    "joint_harm_exact": "answers lost",
    "joint_harm": "loss",
    "harm": "loss, untrained",
    "gain": "own gain",
    "interference_index": "harm over gain",
    "conflict": "gradient conflict",
}
_FORGOTTEN = {"forgetting_exact": "exact match", "forgetting": "nats a token"}
_PARAMETERS = Figure("methodparameters", tables.quality_table, charts.quality_scatter)
_MATRICES = Figure("methodmatrices", tables.interference_table, charts.interference_matrices)
_SEQUENCE = Figure("methodsequence", tables.sequential_table, charts.sequential_curves)
_FIRST = ("csreft", "loreft", "lora", "olora")
_COMMAND = "python -m csreft_core compare --seeds 0,1,2,3,4 --out runs/comparison"


def choose_comparison() -> Comparison | None:
    """The list of comparisons; without any, what makes one."""
    comparisons = library.all_comparisons()
    st.markdown(
        "Every method on the same base, data and steps, from several seeds. Intervals are 95 % "
        "intervals over the seeds."
    )
    if not comparisons:
        st.info(
            "No comparison is there yet. This command makes one, and goes on where it stopped when "
            "it is given again; about a minute for each method and seed on two cores:",
            icon=":material/balance:",
        )
        st.code(_COMMAND, language="bash", wrap_lines=True)
        return None
    chosen = choose(
        "comparison",
        "Comparison",
        {identity: library.label(identity) for identity in comparisons},
        width=320,
        help="Shipped ones, and those that `compare` made in the runs folder.",
    )
    return comparisons[chosen]


def show_about(comparison: Comparison) -> None:
    """What was compared, where and when, and what is missing."""
    asked = comparison.plan()
    first = asked.first
    budget = (
        "sizes of the presets"
        if asked.budget is None
        else (f"sizes chosen for {asked.budget:,} trained parameters")
    )
    versions = ", ".join(f"{name} {version}" for name, version in asked.versions.items())
    st.caption(
        plain(
            f"{len(asked.methods)} methods, seeds {', '.join(map(str, asked.seeds))}; base "
            f"{first.base.path}, skill set {first.data.path}, {first.train.steps} steps of "
            f"{first.train.batch_size} prompts; {budget}. {asked.date}, "
            f"{asked.machine}; {versions}."
        )
    )
    with st.popover("Command", icon=":material/terminal:", type="tertiary", key="m-command"):
        st.code(asked.command, language="bash", wrap_lines=True)
    problems = table_of(JUDGED, tables.problems_table, **_of(comparison))
    if len(problems):
        st.warning(plain(sentences.sentence_problems(problems)), icon=":material/error:")
        with st.expander("Cells that are not finished", key="m-problems"):
            st.dataframe(problems, hide_index=True)


def _of(comparison: Comparison) -> dict[str, Any]:
    """The comparison as the argument of a table."""
    return {"comparison": short_path(comparison.path)}


def show_quality(comparison: Comparison) -> None:
    """All methods by quality, and quality against parameters."""
    measure = choose("m-quality", "Quality", _QUALITY, widget=SEGMENTS)
    _show_dots(comparison, measure, "methodquality")
    _PARAMETERS.show(
        JUDGED,
        sentence=lambda table: sentences.sentence_quality(table, _of_split(measure)),
        options={"measure": _of_split(measure)},
        **_of(comparison),
        split="test_two_skills" if measure == "two_skills" else "test",
    )


def _of_split(measure: str) -> str:
    return "exact_match" if measure == "two_skills" else measure


def show_interference(comparison: Comparison) -> None:
    """The matrices of a few methods on one scale, and one number for each method."""
    chosen = _choose_methods(comparison)
    with st.container(horizontal=True):
        start = choose("m-start", "Training on one skill starts", _STARTS, widget=SEGMENTS)
        unit = choose("m-unit", "Harm in", _UNITS, widget=SEGMENTS)
    table = table_of(JUDGED, tables.interference_table, **_of(comparison))
    skills = _skills(table, "evaluated")
    _MATRICES.show(
        JUDGED,
        sentence=lambda table: sentences.sentence_interference(table, chosen, unit=unit),
        options={"names": skills, "methods": chosen, "unit": unit},
        **_of(comparison),
        start=start,
    )
    _show_dots(
        comparison, choose("m-harm", "Over all methods", _HARMS, widget=SEGMENTS), "methodharm"
    )


def show_sequence(comparison: Comparison) -> None:
    """Loss of every skill over the stages, and the forgetting of each method."""
    chosen = _choose_methods(comparison)
    table = table_of(JUDGED, tables.sequential_table, **_of(comparison))
    skills = _skills(table, "trained")
    _SEQUENCE.show(
        JUDGED,
        sentence=lambda table: sentences.sentence_sequential(table, chosen),
        options={"names": skills, "methods": chosen},
        **_of(comparison),
    )
    _show_dots(
        comparison,
        choose("m-forgotten", "Forgetting in", _FORGOTTEN, widget=SEGMENTS),
        "methodforgetting",
    )


def show_cost(comparison: Comparison) -> None:
    """Time, memory or speed of each method."""
    _show_dots(comparison, choose("m-cost", "Cost", _COSTS, widget=SEGMENTS), "methodcost")


def show_table(comparison: Comparison) -> None:
    """All numbers, a row for each method."""
    table = table_of(JUDGED, tables.main_table, **_of(comparison))
    st.subheader("What was measured on each method?", anchor=False)
    means = [c for c in table if not str(c).endswith(("_low", "_high", "_seeds")) and c != "method"]
    number = st.column_config.NumberColumn
    st.dataframe(
        table[means],
        hide_index=True,
        height=38 + 35 * len(table),
        key="m-table",
        column_config={
            "exact_match": number("exact match", format="percent"),
            "two_skills": number("two skills", format="percent"),
            "loss": number("loss (nats)", format="%.3f"),
            "share": number("share (%)", format="%.3f"),
            "joint_harm_exact": number("answers lost, joint start", format="percent"),
            "joint_harm": number("harm, joint start (nats)", format="%.3f"),
            "harm_exact": number("answers lost, untrained", format="percent"),
            "harm": number("harm, untrained (nats)", format="%.3f"),
            "gain_exact": number("answers gained, untrained", format="percent"),
            "gain": number("gain, untrained (nats)", format="%.3f"),
            "interference_index": number("harm over gain", format="%.3f"),
            "forgetting_exact": number("forgetting (exact match)", format="percent"),
            "forgetting": number("forgetting (nats)", format="%.3f"),
            "conflict": number("conflict (cosine)", format="%.3f"),
            "train_s": number("training (s)", format="%.1f"),
            "peak_bytes": number("memory (bytes)", format="compact"),
            "tokens_per_s": number("tokens/s", format="%.0f"),
        },
    )
    st.caption(
        "Means over the seeds; the intervals are in the data below. An empty cell was not "
        "measured; harm over gain is given only where the gain is shown."
    )
    show_data(table, "methods", command=command(JUDGED, tables.main_table, _of(comparison)))


def _show_dots(comparison: Comparison, measure: str, name: str) -> None:
    Figure(name, tables.main_table, charts.method_dots).show(
        JUDGED,
        sentence=lambda table: sentences.sentence_place(table, measure),
        options={"measure": measure},
        **_of(comparison),
    )


def _choose_methods(comparison: Comparison) -> tuple[str, ...]:
    """The methods that are drawn side by side; they stay in the URL, joined by commas."""
    labels = comparison.plan().methods
    usual = [label for label in _FIRST if label in labels] or list(labels[:4])
    text = recall("drawn", ",".join(usual))
    chosen = [label for label in text.split(",") if label in labels] or usual
    names = {label: tables.label_name(label) for label in labels}
    st.session_state["drawn-methods"] = chosen
    st.multiselect(
        "Methods side by side",
        labels,
        key="drawn-methods",
        format_func=lambda m: names[m],
        on_change=lambda: keep(
            "drawn", ",".join(st.session_state["drawn-methods"]), ",".join(usual)
        ),
    )
    return tuple(chosen)


def _skills(table: pd.DataFrame, column: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(table[column]))
