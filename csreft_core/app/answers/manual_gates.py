"""The gates of the Compare page that are set by hand, one slider for each subspace."""

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from csreft_core.app.figures.figure import table_of
from csreft_core.app.figures.source import of_run
from csreft_core.app.page import cached
from csreft_core.app.page.later import Later
from csreft_core.app.page.markup import plain
from csreft_core.app.page.prompts import trained_setting
from csreft_core.app.page.state import forget, keep, recall
from csreft_core.app.page.widgets import help_text
from csreft_core.errors import ConfigError
from csreft_core.reft.gate_settings import parse_gate_setting
from csreft_core.runs.all_runs import Run
from csreft_core.skills.skill_set import Row

_gates = Later("csreft_core.analysis.gates.tables")

LOWEST, HIGHEST, STEP = -1.0, 2.0, 0.05


@dataclass(frozen=True)
class Gates:
    """The gates of the run for this prompt, and those that were set by hand.

    Attributes:
        names: Of the subspaces.
        own: Values of the setting that the run was trained with.
        manual: Values set by hand; None follows the run.
    """

    names: tuple[str, ...]
    own: tuple[float, ...]
    manual: tuple[float, ...] | None

    @property
    def values(self) -> tuple[float, ...]:
        """What the sliders show."""
        return self.own if self.manual is None else self.manual

    @property
    def setting(self) -> str:
        """The manual gates as a gate setting; empty where they follow the run."""
        return "" if self.manual is None else as_text(self.manual)


def as_text(values: Sequence[float]) -> str:
    """Gates as they stand in the URL and in a gate setting."""
    return ",".join(f"{round(value, 4):g}" for value in values)


def read_gates(run: Run, row: Row) -> Gates:
    """The run's own gates for the prompt, and the manual ones that the URL holds as `gates`."""
    names = cached.spec_of(run).names
    trained = trained_setting(run, row)
    table = table_of(of_run(run), _gates.gates_table, prompts=(row.prompt,), gates=trained)
    own = tuple(float(gate) for gate in table["gate"])
    text = recall("gates", "")
    if not text:
        return Gates(names, own, None)
    try:
        manual = parse_gate_setting(text, names).vector
    except ConfigError:
        manual = ()
    if not manual or not all(LOWEST <= gate <= HIGHEST for gate in manual):
        st.warning(
            f"The address asks for {plain(f'gates={text[:60]}')}; this run needs {len(names)} "
            f"numbers from {LOWEST:g} to {HIGHEST:g}, one for each of {plain(', '.join(names))}. "
            "The manual gates follow the run.",
            icon=":material/link_off:",
        )
        forget("gates")
        return Gates(names, own, None)
    return Gates(names, own, manual)


def choose_gates(run: Run, gates: Gates) -> None:
    """A slider for each subspace; moving one sets all gates by hand, at what they are now."""
    follows = "Follow the router" if has_router(run) else "As trained"
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown("**Manual gates**", help=help_text("manual"), width="content")
            st.button(
                follows,
                key="compare-follow",
                on_click=forget,
                args=("gates",),
                icon=":material/alt_route:",
                disabled=gates.manual is None,
                help="Give the gates back: the values of this run for this prompt.",
            )
            st.button(
                "Reset (off)",
                key="compare-off",
                on_click=keep,
                args=("gates", as_text([0.0] * len(gates.names))),
                icon=":material/block:",
                help="All gates 0: the adapter changes nothing.",
            )
            state = "set by hand" if gates.manual is not None else "as the run sets them"
            st.caption(f"Now {state}.")
        with st.grid(min(4, max(2, len(gates.names))), min_column_width=200):
            for place in range(len(gates.names)):
                with st.container():
                    _slider(gates, place)


def show_value(key: str, value: object) -> None:
    """Put a value into a widget; left alone where it is there, or quick keys would be undone."""
    shown = st.session_state.get(key)
    if isinstance(value, float) and isinstance(shown, float) and abs(value - shown) < 1e-6:
        return  # the browser counts steps in binary: 0.15 arrives as 0.15000000000000002
    if shown != value:
        st.session_state[key] = value


def _slider(gates: Gates, place: int) -> None:
    name, key = plain(gates.names[place]), f"compare-gate-{place}"
    show_value(key, round(round(gates.values[place] / STEP) * STEP, 2))
    st.slider(
        name,
        LOWEST,
        HIGHEST,
        step=STEP,
        key=key,
        help=help_text("manual"),
        on_change=_keep_gate,
        args=(key, place, gates.values),
    )
    only = [float(i == place) for i in range(len(gates.names))]
    if len(gates.names) > 1:
        st.button(
            f"Only {name}",
            key=f"compare-only-{place}",
            on_click=keep,
            type="tertiary",
            icon=":material/filter_1:",
            args=("gates", as_text(only)),
            help=f"The gate of {name} 1, every other 0.",
        )


def _keep_gate(key: str, place: int, values: tuple[float, ...]) -> None:
    """The moved gate changes; the others stay exactly at what they were."""
    changed = [st.session_state[key] if i == place else v for i, v in enumerate(values)]
    keep("gates", as_text(changed))


def has_router(run: Run) -> bool:
    """Whether a router sets the gates of this run."""
    return run.config().router.gates == "learned"
