"""Panels of the Router page about held-out rows: gates beside their controls, and their cost."""

from typing import Any

import streamlit as st

from csreft_core.analysis.gates import sentences as say
from csreft_core.app.figures.figure import Figure
from csreft_core.app.figures.source import of_run, short_path
from csreft_core.app.page import cached, library
from csreft_core.app.page.choices import SEGMENTS, choose
from csreft_core.app.page.later import Later
from csreft_core.charts.gates import figures as charts
from csreft_core.charts.gates import maps, scores
from csreft_core.errors import AdapterError
from csreft_core.reft.base_record import differences
from csreft_core.runs.all_runs import Run
from csreft_core.skills.skill_set import TEST_SPLITS

gates = Later("csreft_core.analysis.gates.tables")

_DISTRIBUTION = Figure(
    "gatesbysource", gates.distribution_table, charts.gates_by_source, say.sentence_distribution
)
_MEANS = Figure("gatemeans", gates.means_table, maps.mean_gate_map, say.sentence_means)
_PATTERNS = Figure("gatepatterns", gates.patterns_table, maps.pattern_map, say.sentence_patterns)
_INFORMATION = Figure(
    "gateinformation", gates.metrics_table, scores.information_dots, say.sentence_information
)
_PROFILE = Figure("gateprofile", gates.metrics_table, scores.gate_profile, say.sentence_profile)
_COACTIVATION = Figure(
    "coactivation", gates.coactivation_table, maps.coactivation_map, say.sentence_coactivation
)
_SETTINGS = Figure("gatesettings", gates.settings_table, scores.setting_dots, say.sentence_settings)
_SWEEP = Figure("sweep", gates.sweep_table, scores.sweep_lines, say.sentence_sweep)

PER_SKILL = {
    _DISTRIBUTION: 25,
    _MEANS: 60,
    _PATTERNS: 60,
    _INFORMATION: 60,
    _PROFILE: 60,
    _COACTIVATION: 60,
    _SETTINGS: 30,
    _SWEEP: 20,
}
"""From how many rows of each skill a figure is made, at most; points and scored rows are fewer."""

_PAIRS = {
    "Gates": (_DISTRIBUTION, _MEANS),
    "Skills": (_PATTERNS, _INFORMATION),
    "Each gate": (_PROFILE, _COACTIVATION),
    "Answers": (_SETTINGS, _SWEEP),
}
LOOKS = tuple(_PAIRS)


def has_router(run: Run) -> bool:
    """Whether the run's adapter has a router."""
    return cached.spec_of(run).has_router


def splits_of(run: Run) -> list[str]:
    """The held-out rows first, then every split that has rows."""
    splits = cached.skill_set_of(run).splits
    return [*(["test"] if set(splits) & set(TEST_SPLITS) else []), *splits]


def control_runs(run: Run) -> tuple[str, ...]:
    """The shipped first-token router as a control; for one itself, one that reads the prompt."""
    first_token = has_router(run) and run.config().router.input == "first_token"
    other = library.example("recommended" if first_token else "paper", library.all_runs())
    if other is None or other.path == run.path or not other.adapter_path.exists():
        return ()
    try:
        theirs = cached.spec_of(other).base_fingerprint
    except AdapterError:
        return ()  # A damaged control must not take the run's own figures away.
    other_base = differences(theirs, cached.spec_of(run).base_fingerprint)
    return () if other_base else (short_path(other.path),)


def choose_look(run: Run) -> tuple[str, str]:
    """Which held-out rows, and which figures of them; both are in the URL."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        look = choose("look", "Show", LOOKS, widget=SEGMENTS)
        split = choose(
            "split",
            "Split",
            splits_of(run),
            width=220,
            help="test: the three test splits together. Nothing of them was trained on.",
        )
    return look, split


def show_held_out(run: Run, look: str, split: str) -> None:
    """The chosen figures of the held-out rows, with the controls beside the run's own gates."""
    for column, figure in zip(st.columns(2, gap="large"), _PAIRS[look], strict=True):
        with column:
            if figure is _SWEEP and not has_router(run):
                st.caption("There are no learned gates to cut at a threshold.")
                continue
            figure.show(
                of_run(run),
                options=_options(run, figure),
                split=split,
                per_skill=PER_SKILL[figure],
                others=control_runs(run),
            )


def _options(run: Run, figure: Figure) -> dict[str, Any]:
    if figure is _SWEEP:
        return {"threshold": run.config().router.threshold}
    return {} if figure in (_INFORMATION, _SETTINGS) else {"names": cached.skill_names(run)}
