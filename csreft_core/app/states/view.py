"""What the States page shows: its controls, kept in the address."""

from dataclasses import dataclass

import streamlit as st

from csreft_core.analysis.states.projection import BASES, edited_token, edits_token
from csreft_core.app.page import cached
from csreft_core.app.page.state import remembered, written
from csreft_core.reft.adapter import CSReFT
from csreft_core.runs.all_runs import Run
from csreft_core.skills.skill_set import Row

_TOKENS = ("last", "-2", "-3", "-4", "-5", "-6", "first", "mean")
_TOKEN_NAMES = {"last": "last of the prompt", "first": "first", "mean": "mean of the prompt"}
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
        layer = int(
            _choice(
                "Layer",
                "layer",
                [str(i) for i in range(adapter.spec.n_layers)],
                str(edited[0]),
                {str(i): f"{i} (edited)" for i in edited},
                "Whose output is drawn, from 0 on. Below the first edited layer nothing moves.",
            )
        )
        position = _choice(
            "Token",
            "token",
            list(_TOKENS),
            edited_token(adapter),
            {t: f"{-int(t) - 1} before the last" for t in _TOKENS if t[0] == "-"} | _TOKEN_NAMES,
            "Which token of the prompt. A causal model's earlier tokens never see a later edit.",
        )
        subspaces = [f"subspace:{n}" for n in adapter.names] if layer in edited else []
        basis = _choice(
            "Axes fitted on",
            "basis",
            [*BASES, *subspaces],
            "joint",
            BASIS_NAMES | {s: f"subspace of {s.removeprefix('subspace:')}" for s in subspaces},
            "Principal components of these states, or one subspace's own axes at an edited layer.",
        )
        n_axes = int(
            _choice(
                "Dimensions",
                "axes",
                ["2", "3"],
                "2",
                {"2": "2D", "3": "3D"},
                "Two axes, or three that can be turned with the mouse.",
            )
        )
        gates = _choice(
            "Gates",
            "gates",
            _settings(run, adapter),
            run.config().router.gates,
            _GATE_NAMES | {f"only:{n}": f"only {n}" for n in adapter.names},
            "Who sets the gates of the edited run.",
        )
        subspace = _choice(
            "Subspace of the coordinates",
            "subspace",
            list(adapter.names),
            adapter.names[0],
            {},
            "Whose coordinates R h are drawn in 'Does the edit reach its target?'.",
        )
        per_skill = int(
            _choice(
                "Prompts of each skill",
                "n",
                ["6", "12", "24", "48"],
                "12",
                {},
                "Held-out prompts, taken evenly from the test splits.",
            )
        )
    return View(
        layer=layer,
        position=position,
        basis=basis,
        n_axes=n_axes,
        gates=gates,
        subspace=subspace,
        per_skill=per_skill,
        prompts=_own_prompt(row, gates),
        is_edited=layer in edited and edits_token(adapter, position),
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
