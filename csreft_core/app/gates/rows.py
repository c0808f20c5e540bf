"""Panels of the Router page about held-out rows: gates beside their controls, and their cost."""

from collections.abc import Callable

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from csreft_core.analysis.gates import sentences as say
from csreft_core.analysis.gates import tables as gates
from csreft_core.app.figures import views
from csreft_core.app.page import cached, library
from csreft_core.app.page.state import remembered, written
from csreft_core.charts.gates import figures as gate_charts
from csreft_core.charts.gates import maps as gate_maps
from csreft_core.charts.gates import scores as gate_scores
from csreft_core.errors import AdapterError
from csreft_core.reft.base_record import differences
from csreft_core.runs.all_runs import Run
from csreft_core.skills.skill_set import TEST_SPLITS

LOOKS = ("Gates", "Skills", "Each gate", "Answers")
# Points of a strip, rows of a mean, and rows that are scored: of each skill.
_POINTS, _ROWS, _SCORED, _SWEPT = 25, 60, 30, 20


def has_router(run: Run) -> bool:
    """Whether the run's adapter has a router."""
    return cached.adapter_of(run).router is not None


def splits_of(run: Run) -> list[str]:
    """The held-out rows first, then every split that has rows."""
    there = cached.skill_set_of(run).splits
    return [*(["test"] if set(there) & set(TEST_SPLITS) else []), *there]


def control_runs(run: Run) -> tuple[str, ...]:
    """The shipped first-token router as a control; for one itself, one that reads the prompt."""
    first_token = has_router(run) and run.config().router.input == "first_token"
    other = library.example("recommended" if first_token else "paper", library.all_runs())
    if other is None or other.path == run.path or not other.adapter_path.exists():
        return ()
    try:
        theirs = cached.adapter_of(other).spec.base_fingerprint
    except AdapterError:
        return ()  # A damaged control must not take the run's own figures away.
    other_base = differences(theirs, cached.adapter_of(run).spec.base_fingerprint)
    return () if other_base else (views.path_of(other),)


def choose_look(run: Run) -> tuple[str, str]:
    """Which held-out rows, and which figures of them; both are in the URL."""
    splits = splits_of(run)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        look = remembered("look", LOOKS[0], LOOKS)
        st.segmented_control(
            "Show", LOOKS, key="look", required=True, on_change=written, args=("look",)
        )
        split = remembered("split", splits[0], splits)
        st.selectbox(
            "Split",
            splits,
            key="split",
            on_change=written,
            args=("split",),
            width=220,
            help="test: the three test splits together. Nothing of them was trained on.",
        )
    return look, split


def show_held_out(run: Run, look: str, split: str) -> None:
    """The chosen figures of the held-out rows, with the controls beside the run's own gates."""
    {
        "Gates": _show_gates,
        "Skills": _show_skills,
        "Each gate": _show_each,
        "Answers": _show_answers,
    }[look](run, split)


def _figure(
    run: Run,
    split: str,
    make: Callable[..., pd.DataFrame],
    draw: Callable[..., go.Figure],
    name: str,
    sentence: Callable[[pd.DataFrame], str],
    per_skill: int,
    named: bool = True,
) -> None:
    views.show(
        run,
        make,
        draw,
        name=name,
        sentence=sentence,
        options={"names": cached.skill_names(run)} if named else None,
        split=split,
        per_skill=per_skill,
        others=control_runs(run),
    )


def _show_gates(run: Run, split: str) -> None:
    left, right = st.columns(2, gap="large")
    with left:
        _figure(
            run,
            split,
            gates.distribution_table,
            gate_charts.gates_by_source,
            "gatesbysource",
            say.sentence_distribution,
            _POINTS,
        )
    with right:
        _figure(
            run,
            split,
            gates.means_table,
            gate_maps.mean_gate_map,
            "gatemeans",
            say.sentence_means,
            _ROWS,
        )


def _show_skills(run: Run, split: str) -> None:
    left, right = st.columns(2, gap="large")
    with left:
        _figure(
            run,
            split,
            gates.patterns_table,
            gate_maps.pattern_map,
            "gatepatterns",
            say.sentence_patterns,
            _ROWS,
        )
    with right:
        _figure(
            run,
            split,
            gates.metrics_table,
            gate_scores.information_dots,
            "gateinformation",
            say.sentence_information,
            _ROWS,
            named=False,
        )


def _show_each(run: Run, split: str) -> None:
    left, right = st.columns(2, gap="large")
    with left:
        _figure(
            run,
            split,
            gates.metrics_table,
            gate_scores.gate_profile,
            "gateprofile",
            say.sentence_profile,
            _ROWS,
        )
    with right:
        _figure(
            run,
            split,
            gates.coactivation_table,
            gate_maps.coactivation_map,
            "coactivation",
            say.sentence_coactivation,
            _ROWS,
        )


def _show_answers(run: Run, split: str) -> None:
    left, right = st.columns(2, gap="large")
    with left:
        _figure(
            run,
            split,
            gates.settings_table,
            gate_scores.setting_dots,
            "gatesettings",
            say.sentence_settings,
            _SCORED,
            named=False,
        )
    with right:
        if not has_router(run):
            st.caption("There are no learned gates to cut at a threshold.")
            return
        views.show(
            run,
            gates.sweep_table,
            gate_scores.sweep_lines,
            name="sweep",
            sentence=say.sentence_sweep,
            options={"threshold": run.config().router.threshold},
            split=split,
            per_skill=_SWEPT,
            others=control_runs(run),
        )
