"""Panels of the States page: where states lie, what the edit moves, and how that formed."""

from dataclasses import dataclass

import streamlit as st

from csreft_core.adapter import CSReFT
from csreft_core.analysis import states as tables
from csreft_core.analysis import states_sentences as say
from csreft_core.analysis.projection import BASES, edited_token
from csreft_core.charts import animation
from csreft_core.charts import states as charts
from csreft_core.runs import Run
from csreft_core.skills import Row
from csreft_core.ui import cached, views
from csreft_core.ui.state import remembered, written

_TOKENS = ("last", "-2", "-3", "-4", "-5", "-6", "first", "mean")
_TOKEN_NAMES = {"last": "last of the prompt", "first": "first", "mean": "mean of the prompt"}
_BASIS_NAMES = {
    "base": "base states",
    "joint": "base and edited states",
    "differences": "differences h' - h",
}
_GATE_NAMES = {
    "learned": "as the router decides",
    "hard": "router, rounded to 0 or 1",
    "oracle": "1 for the true skill (oracle)",
    "uniform": "uniform, 1/k each",
    "off": "off (control)",
}


@dataclass(frozen=True)
class View:
    """What the page shows; all of it is in the address."""

    layer: int
    position: str
    basis: str
    n_axes: int
    gates: str
    subspace: str
    per_skill: int
    prompts: tuple[str, ...]
    is_edited: bool


def intro(run: Run | None) -> None:
    """The title and what one is looking at."""
    st.title("States", anchor=False)
    if run is None:
        st.info(
            "There is no run to show. Train one; it takes less than a minute.",
            icon=":material/info:",
        )
        st.page_link("pages/Train.py", label="Train a run", icon=":material/model_training:")
        return
    st.markdown(
        "A **state** is the vector h that a layer gives a token. The adapter moves it to h'. A "
        "picture of it is a shadow on two or three axes, so each picture says how much of the "
        "states, and how much **of the edit**, its axes can show."
    )


def _choice(
    label: str, name: str, options: list[str], default: str, names: dict[str, str], help: str
) -> str:
    def shown(option: str) -> str:
        return names.get(option, option)

    key = f"states-{name}"
    chosen = remembered(key, default, options)
    st.selectbox(
        label,
        options,
        format_func=shown,
        key=key,
        on_change=written,
        args=(key,),
        help=help,
        width=215,
    )
    return chosen


def choose_view(run: Run, row: Row) -> View:
    """The controls, kept in the address.

    Raises:
        AdapterError: the adapter cannot be read, or is of another base.
    """
    adapter = cached.subject_of(run).adapter
    edited = adapter.layers
    with st.container(horizontal=True, gap="small"):
        layer = int(_choice(
            "Layer", "layer", [str(i) for i in range(adapter.spec.n_layers)], str(edited[0]),
            {str(i): f"{i} (edited)" for i in edited},
            "Whose output is drawn, counted from 0. Below the first edited layer nothing moves.",
        ))  # fmt: skip
        position = _choice(
            "Token", "token", list(_TOKENS), edited_token(adapter),
            {t: f"{-int(t) - 1} before the last" for t in _TOKENS if t[0] == "-"} | _TOKEN_NAMES,
            "Which token of the prompt. A causal model's earlier tokens never see a later edit.",
        )  # fmt: skip
        subspaces = [f"subspace:{n}" for n in adapter.names] if layer in edited else []
        basis = _choice(
            "Axes fitted on", "basis", [*BASES, *subspaces], "joint",
            _BASIS_NAMES | {s: f"subspace of {s.removeprefix('subspace:')}" for s in subspaces},
            "Principal components of these states, or one subspace's own axes at an edited layer.",
        )  # fmt: skip
        n_axes = int(_choice(
            "Dimensions", "axes", ["2", "3"], "2", {"2": "2D", "3": "3D"},
            "Two axes, or three that can be turned with the mouse.",
        ))  # fmt: skip
        gates = _choice(
            "Gates", "gates", _settings(run, adapter), run.config().router.gates,
            _GATE_NAMES | {f"only:{n}": f"only {n}" for n in adapter.names},
            "Who sets the gates of the edited run.",
        )  # fmt: skip
        subspace = _choice(
            "Subspace of the coordinates", "subspace", list(adapter.names), adapter.names[0], {},
            "Whose coordinates R h are drawn in 'Does the edit reach its target?'.",
        )  # fmt: skip
        per_skill = int(_choice(
            "Prompts of each skill", "n", ["6", "12", "24", "48"], "12", {},
            "Held-out prompts, taken evenly from the test splits.",
        ))  # fmt: skip
    return View(
        layer=layer,
        position=position,
        basis=basis,
        n_axes=n_axes,
        gates=gates,
        subspace=subspace,
        per_skill=per_skill,
        prompts=_own_prompt(row, gates),
        is_edited=layer in edited and position != "mean",
    )


def _settings(run: Run, adapter: CSReFT) -> list[str]:
    """Gate settings that this adapter can answer under."""
    found = ["uniform", *(f"only:{name}" for name in adapter.names), "off"]
    if set(cached.skill_names(run)) <= set(adapter.names):
        found.insert(0, "oracle")
    if adapter.router is not None:
        found[:0] = ["learned", "hard"]
    return found


def _own_prompt(row: Row, gates: str) -> tuple[str, ...]:
    if not row.prompt.strip():
        st.warning("The prompt is empty; write a question to see it among the others.")
        return ()
    if gates == "oracle" and not row.skills:
        st.warning(
            "Your prompt is not in the data, so its true skill is not known and oracle gates "
            "cannot be set for it: the pictures leave it out. Choose other gates to see it."
        )
        return ()
    return (row.prompt,)


def show_states(run: Run, view: View) -> None:
    """The states on the chosen axes, beside the axes one would take without thinking."""
    control = "base" if view.basis != "base" else "differences"
    for column, basis in zip(st.columns(2, gap="large"), (view.basis, control), strict=True):
        name = _BASIS_NAMES.get(basis, f"the subspace of {basis.removeprefix('subspace:')}")
        with column:
            views.show(
                run,
                tables.states_table,
                charts.state_scatter,
                name="states-chosen" if basis == view.basis else "states-control",
                sentence=say.sentence_states,
                heading=f"What does the edit move? Axes of {name}"
                if basis == view.basis
                else f"For comparison: axes of {name}",
                options={"names": cached.skill_names(run)},
                prompts=view.prompts,
                per_skill=view.per_skill,
                gates=view.gates,
                layer=view.layer,
                position=view.position,
                basis=basis,
                n_axes=view.n_axes,
            )


def show_scree(run: Run, view: View) -> None:
    """How much is hidden."""
    views.show(
        run,
        tables.scree_table,
        charts.scree_bars,
        name="scree",
        sentence=say.sentence_scree,
        per_skill=view.per_skill,
        gates=view.gates,
        layer=view.layer,
        position=view.position,
    )


def show_coordinates(run: Run, view: View) -> None:
    """One subspace's coordinates, with their target."""
    if not view.is_edited:
        _needs_an_edited_layer(run)
        return
    views.show(
        run,
        tables.coordinates_table,
        charts.coordinate_scatter,
        name="coordinates",
        sentence=say.sentence_coordinates,
        options={"names": cached.skill_names(run)},
        prompts=view.prompts,
        per_skill=view.per_skill,
        gates=view.gates,
        layer=view.layer,
        position=view.position,
        subspace=view.subspace,
    )


def _needs_an_edited_layer(run: Run) -> None:
    layers = ", ".join(map(str, cached.adapter_of(run).layers))
    st.info(
        f"Subspaces exist at edited layers only, and their coordinates are of one token. Choose "
        f"layer {layers} and a token other than the mean to see them.",
        icon=":material/info:",
    )


def show_energy(run: Run, view: View) -> None:
    """Whose subspace makes the edit."""
    if not view.is_edited:
        return
    views.show(
        run,
        tables.energy_table,
        charts.energy_map,
        name="energy",
        sentence=say.sentence_energy,
        options={"names": cached.skill_names(run)},
        per_skill=view.per_skill,
        gates=view.gates,
        layer=view.layer,
        position=view.position,
    )


def show_sizes(run: Run, view: View) -> None:
    """How strong the edit is at each layer and token: held-out prompts, and one's own."""
    left, right = st.columns(2, gap="large")
    with left:
        views.show(
            run,
            tables.size_table,
            charts.size_map,
            name="editsize",
            sentence=say.sentence_size,
            per_skill=view.per_skill,
            gates=view.gates,
        )
    with right:
        if view.prompts:
            views.show(
                run,
                tables.size_table,
                charts.size_map,
                name="editsize-own",
                sentence=say.sentence_size,
                heading="And in your prompt?",
                prompts=view.prompts,
                gates=view.gates,
            )


def show_training(run: Run, view: View) -> None:
    """The states over the steps of the training."""
    edited = cached.adapter_of(run).layers
    layer = view.layer if view.layer in edited else edited[0]
    basis = view.basis.replace(":", "-")
    # Frames of another run or other axes must not stay: a new key makes a new chart.
    views.show(
        run,
        tables.training_table,
        animation.training_states,
        name=f"formation-{run.name}-{layer}-{basis}-{view.n_axes}",
        sentence=say.sentence_training,
        options={"names": cached.skill_names(run)},
        layer=layer,
        basis=view.basis,
        n_axes=view.n_axes,
    )


def show_separation(run: Run, view: View) -> None:
    """How well the skill can be read, when asked for: it fits thirty probes."""
    asked = st.expander(
        "Where can one read the skill? Silhouette and linear probes (about two seconds)",
        key="states-separation",
        on_change="rerun",
        icon=":material/category_search:",
    )
    if not asked.open:
        return
    with asked:
        views.show(
            run,
            tables.separation_table,
            charts.separation_dots,
            name="separation",
            sentence=say.sentence_separation,
            per_skill=max(view.per_skill, 12),
            gates=view.gates,
            layer=view.layer,
            position=view.position,
        )
