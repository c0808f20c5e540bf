"""What the States page shows: its controls, kept in the address."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from csreft_core.analysis.states.choices import BASES, edited_token, edits_token
from csreft_core.app.page import cached
from csreft_core.app.page.choices import choose
from csreft_core.reft.adapter_spec import AdapterSpec
from csreft_core.runs.all_runs import Run
from csreft_core.skills.skill_set import Row

_TOKEN_NAMES = {
    "last": "last of the prompt",
    **{f"-{n}": f"{n - 1} before the last" for n in range(2, 7)},
    "first": "first",
    "mean": "mean of the prompt",
}
BASIS_NAMES = {
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

_CONTROLS = {
    "layer": (
        "Layer",
        "Whose output is drawn, from 0 on. Below the first edited layer nothing moves.",
    ),
    "token": (
        "Token",
        "Which token of the prompt. A causal model's earlier tokens never see a later edit.",
    ),
    "basis": (
        "Axes fitted on",
        "Principal components of these states, or one subspace's own axes at an edited layer.",
    ),
    "axes": ("Dimensions", "Two axes, or three that can be turned with the mouse."),
    "gates": ("Gates", "Who sets the gates of the edited run."),
    "subspace": (
        "Subspace of the coordinates",
        "Whose coordinates R h are drawn in 'Does the edit reach its target?'.",
    ),
    "n": ("Prompts of each skill", "Held-out prompts, taken evenly from the test splits."),
}
"""Label and tooltip of each control."""


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

    @property
    def states(self) -> dict[str, Any]:
        """Which states a table is made from: the arguments that most tables share."""
        return {
            "per_skill": self.per_skill,
            "gates": self.gates,
            "layer": self.layer,
            "position": self.position,
        }


def _choose(name: str, options: Mapping[str, str] | Sequence[str], default: str) -> str:
    label, help = _CONTROLS[name]
    return choose(f"states-{name}", label, options, default, help=help, width=215)


def choose_view(run: Run, row: Row) -> View:
    """The controls, kept in the address.

    Raises:
        AdapterError: the adapter cannot be read, or is of another base.
    """
    spec = cached.spec_on_its_base(run)
    with st.container(horizontal=True, gap="small"):
        edited = spec.adapter.layers
        layer = int(_choose("layer", _layers(spec), str(edited[0])))
        is_at_edit = layer in edited
        position = _choose("token", _TOKEN_NAMES, edited_token(spec.positions))
        own_axes = spec.names if is_at_edit else ()
        basis = _choose("basis", _bases(own_axes), "joint")
        n_axes = _choose("axes", {"2": "2D", "3": "3D"}, "2")
        gates = _choose("gates", _gate_settings(run, spec), run.config().router.gates)
        subspace = _choose("subspace", spec.names, spec.names[0])
        per_skill = _choose("n", ("6", "12", "24", "48"), "12")
    return View(
        layer=layer,
        position=position,
        basis=basis,
        n_axes=int(n_axes),
        gates=gates,
        subspace=subspace,
        per_skill=int(per_skill),
        prompts=_own_prompt(row, gates),
        is_edited=is_at_edit and edits_token(spec.positions, position),
    )


def _layers(spec: AdapterSpec) -> dict[str, str]:
    """The layers with what the list shows."""
    n, edited = spec.n_layers, spec.adapter.layers
    return {str(i): f"{i} (edited)" if i in edited else str(i) for i in range(n)}


def _bases(subspaces: Sequence[str]) -> dict[str, str]:
    """What axes can be fitted on, with what the list shows; `subspaces` have axes of their own."""
    common = {basis: BASIS_NAMES[basis] for basis in BASES}
    return common | {f"subspace:{name}": f"subspace of {name}" for name in subspaces}


def _gate_settings(run: Run, spec: AdapterSpec) -> dict[str, str]:
    """Gate settings that this adapter can answer under, with what the list shows."""
    learned = ["learned", "hard"] if spec.has_router else []
    oracle = ["oracle"] if set(cached.skill_names(run)) <= set(spec.names) else []
    single = {f"only:{name}": f"only {name}" for name in spec.names}
    settings = [*learned, *oracle, "uniform", *single, "off"]
    return {setting: (_GATE_NAMES | single)[setting] for setting in settings}


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
