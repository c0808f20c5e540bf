"""Panels of the States page: where states lie, what the edit moves, and how that formed."""

from dataclasses import replace

import streamlit as st

from csreft_core.analysis.states import sentences as say
from csreft_core.app.figures.figure import Figure
from csreft_core.app.figures.source import of_run
from csreft_core.app.page import cached
from csreft_core.app.page.later import Later
from csreft_core.app.page.shell import offer_training
from csreft_core.app.states.view import BASIS_NAMES, View
from csreft_core.charts.states import animation, maps
from csreft_core.charts.states import figures as charts
from csreft_core.runs.all_runs import Run

tables = Later("csreft_core.analysis.states.tables")

PICTURE, AXES, SIZE = "Picture", "Axes and targets", "Size of the edit"
TRAINING, SKILL = "Over training", "Reading the skill"
PARTS = (PICTURE, AXES, SIZE, TRAINING, SKILL)

_CHOSEN_AXES = Figure(
    "states-chosen", tables.states_table, charts.state_scatter, say.sentence_states
)
_CONTROL_AXES = replace(_CHOSEN_AXES, name="states-control")
_SCREE = Figure("scree", tables.scree_table, charts.scree_bars, say.sentence_scree)
_COORDINATES = Figure(
    "coordinates", tables.coordinates_table, charts.coordinate_scatter, say.sentence_coordinates
)
_ENERGY = Figure("energy", tables.energy_table, maps.energy_map, say.sentence_energy)
_SIZE = Figure("editsize", tables.size_table, maps.size_map, say.sentence_size)
_OWN_SIZE = replace(_SIZE, name="editsize-own")
_TRAINING = Figure(
    "formation", tables.training_table, animation.training_states, say.sentence_training
)
_SEPARATION = Figure(
    "separation", tables.separation_table, charts.separation_dots, say.sentence_separation
)


def intro(run: Run | None) -> None:
    """What one is looking at."""
    if run is None:
        offer_training("There is no run to show. Train one.")
        return
    st.markdown(
        "A **state** is the vector h that a layer gives a token. The adapter moves it to h'. A "
        "picture of it is a shadow on two or three axes, so each picture says how much of the "
        "states, and how much **of the edit**, its axes can show."
    )


def show_states(run: Run, view: View) -> None:
    """The states on the chosen axes, beside the axes one would take without thinking."""
    control = "base" if view.basis != "base" else "differences"
    for column, basis in zip(st.columns(2, gap="large"), (view.basis, control), strict=True):
        name = BASIS_NAMES.get(basis, f"the subspace of {basis.removeprefix('subspace:')}")
        with column:
            figure = _CHOSEN_AXES if basis == view.basis else _CONTROL_AXES
            figure.show(
                of_run(run),
                heading=None if basis == view.basis else f"And on the axes of {name}?",
                options={"names": cached.skill_names(run)},
                prompts=view.prompts,
                **view.states,
                basis=basis,
                n_axes=view.n_axes,
            )


def show_scree(run: Run, view: View) -> None:
    """How much is hidden."""
    _SCREE.show(of_run(run), **view.states)


def show_coordinates(run: Run, view: View) -> None:
    """One subspace's coordinates, with their target."""
    if not view.is_edited:
        _needs_an_edit(run)
        return
    _COORDINATES.show(
        of_run(run),
        options={"names": cached.skill_names(run)},
        prompts=view.prompts,
        **view.states,
        subspace=view.subspace,
    )


def _needs_an_edit(run: Run) -> None:
    spec = cached.spec_of(run)
    st.info(
        "The picture of coordinates and targets is of edited tokens. This adapter edits the tokens "
        f"{spec.adapter.positions} at layer {', '.join(map(str, spec.adapter.layers))}; choose "
        "these above to see it.",
        icon=":material/info:",
    )


def show_energy(run: Run, view: View) -> None:
    """Whose subspace makes the edit."""
    if view.is_edited:
        _ENERGY.show(of_run(run), options={"names": cached.skill_names(run)}, **view.states)


def show_sizes(run: Run, view: View) -> None:
    """How strong the edit is at each layer and token: held-out prompts, and one's own."""
    positions = cached.spec_of(run).positions
    # A prefix is edited far from the end; a suffix changes no earlier token.
    places = 16 if positions.everything or positions.prefix else max(8, positions.suffix + 2)
    left, right = st.columns(2, gap="large")
    with left:
        _SIZE.show(of_run(run), per_skill=view.per_skill, gates=view.gates, places=places)
    if view.prompts:
        with right:
            _OWN_SIZE.show(
                of_run(run),
                heading="And in your prompt?",
                prompts=view.prompts,
                gates=view.gates,
                places=places,
            )


def show_training(run: Run, view: View) -> None:
    """The states over the steps of the training, as an animation."""
    edited = cached.spec_of(run).adapter.layers
    layer = view.layer if view.layer in edited else edited[0]
    # Frames of another run or other axes must not stay: a new name makes a new chart.
    name = "-".join(("formation", run.name, str(layer), view.basis, str(view.n_axes)))
    replace(_TRAINING, name=name.replace(":", "-")).show(
        of_run(run),
        options={"names": cached.skill_names(run)},
        layer=layer,
        basis=view.basis,
        n_axes=view.n_axes,
    )


def show_separation(run: Run, view: View) -> None:
    """How well the skill can be read from gates, coordinates and states."""
    states = {**view.states, "per_skill": max(view.per_skill, 24)}
    _SEPARATION.show(of_run(run), **states)
