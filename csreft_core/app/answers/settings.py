"""What the Compare page is asked: its columns, the draw and the manual gates, all in the URL."""

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from csreft_core.analysis.answers.tables import MANUAL
from csreft_core.analysis.gates.tables import gates_table
from csreft_core.app.answers.column import Column, Sampling
from csreft_core.app.page import cached, library
from csreft_core.app.page.ceilings import MOST_NEW_TOKENS
from csreft_core.app.page.markup import plain
from csreft_core.app.page.prompts import trained_setting
from csreft_core.app.page.shell import showing_errors
from csreft_core.app.page.state import forget, keep, remembered, written
from csreft_core.app.page.widgets import help_text
from csreft_core.base.decoding import BASE_OWN, OURS
from csreft_core.errors import ConfigError
from csreft_core.inference.sampling import MOST_SEED, MOST_TEMPERATURE
from csreft_core.reft.gate_settings import parse_gate_setting
from csreft_core.runs.all_runs import Run
from csreft_core.skills.skill_set import Row

LOWEST, HIGHEST, STEP = -1.0, 2.0, 0.05
_KINDS = {"base": "Base", "learned": "This run", "manual": "Manual gates", "other": "Another run"}
_DEFAULT = "base,learned,manual"
_NONE = "none"
_DECODINGS = {OURS: "ours", BASE_OWN: "the base's own"}


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


def choose_kinds() -> tuple[str, ...]:
    """Which columns are shown; kept in the URL as `columns`."""
    text = remembered("columns", _DEFAULT)
    chosen = [kind for kind in _KINDS if kind in text.split(",")]
    if not chosen and text != _NONE:
        chosen = _DEFAULT.split(",")
    _show("compare-columns", chosen)
    st.pills(
        "Columns",
        list(_KINDS),
        selection_mode="multi",
        format_func=_KINDS.__getitem__,
        key="compare-columns",
        on_change=_write_kinds,
        help=help_text("columns"),
        width="content",
    )
    return tuple(chosen)


def _show(key: str, value: object) -> None:
    """Put a value into a widget; left alone where it is there, or quick keys would be undone."""
    there = st.session_state.get(key)
    if isinstance(value, float) and isinstance(there, float) and abs(value - there) < 1e-6:
        return  # the browser counts steps in binary: 0.15 arrives as 0.15000000000000002
    if there != value:
        st.session_state[key] = value


def _write_kinds() -> None:
    chosen = st.session_state["compare-columns"]
    keep("columns", ",".join(kind for kind in _KINDS if kind in chosen) or _NONE, _DEFAULT)


def choose_other(run: Run) -> Run | None:
    """The other run, by its id in the URL as `other`."""
    runs = {
        name: other
        for name, other in library.all_runs().items()
        if other.path != run.path and other.adapter_path.exists()
    }
    if not runs:
        st.info("There is no other run with an adapter. Train one on the Train page.")
        return None
    chosen = remembered("other", next(iter(runs)), runs)
    keep("other", chosen)  # always in the address: the default changes when a run is added
    st.selectbox(
        "Another run",
        list(runs),
        format_func=library.label,
        key="other",
        on_change=written,
        args=("other",),
        help=help_text("other"),
        width=280,
    )
    return runs[chosen]


def choose_sampling() -> Sampling:
    """How to decode, with seed and longest answer; each in the URL under its name.

    Temperature and top-p are ours: the base's own decoding has its own.
    """
    decoding = remembered("decoding", OURS, _DECODINGS)
    st.selectbox(
        "Decoding",
        list(_DECODINGS),
        format_func=_DECODINGS.__getitem__,
        key="decoding",
        on_change=written,
        args=("decoding",),
        help=help_text("decoding"),
        width=170,
    )
    temperature, top_p = 0.0, 1.0
    if decoding == OURS:
        temperature = _number("temperature", "Temperature", 0.0, (0.0, MOST_TEMPERATURE), 0.1)
        top_p = _number("top_p", "Top-p", 1.0, (0.05, 1.0), 0.05)
    return Sampling(
        float(temperature),
        float(top_p),
        int(_number("seed", "Seed", 0, (0, MOST_SEED), 1)),
        int(_number("length", "Most tokens", 32, (1, MOST_NEW_TOKENS), 1)),
        decoding,
    )


def _number(
    name: str,
    label: str,
    default: int | float,
    limits: tuple[int | float, int | float],
    step: int | float,
) -> int | float:
    """A number that the URL may hold; what is no number in the limits is said and left out."""
    text = remembered(name, f"{default:g}")
    kind = type(default)
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not limits[0] <= value <= limits[1]:
        st.warning(
            f"The address asks for {plain(f'{name}={text[:40]}')}; it must be a "
            f"{'whole ' if kind is int else ''}number from {limits[0]:g} to {limits[1]:g}. "
            f"{default:g} is used.",
            icon=":material/link_off:",
        )
        forget(name)
        value = default
    key = f"compare-{name}"
    _show(key, value)
    return st.number_input(
        label,
        limits[0],
        limits[1],
        step=step,
        key=key,
        width=150,
        help=help_text(name),
        on_change=_write_number,
        args=(name, key, f"{default:g}"),
    )


def _write_number(name: str, key: str, default: str) -> None:
    value = st.session_state[key]
    keep(name, str(value) if isinstance(value, int) else f"{value:g}", default)


def read_gates(run: Run, row: Row) -> Gates:
    """The run's own gates for the prompt, and the manual ones that the URL holds as `gates`."""
    names = cached.adapter_of(run).names
    table = cached.table(gates_table, run, prompts=(row.prompt,), gates=trained_setting(run, row))
    own = tuple(float(gate) for gate in table["gate"])
    text = remembered("gates", "")
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


def _slider(gates: Gates, place: int) -> None:
    name, key = plain(gates.names[place]), f"compare-gate-{place}"
    _show(key, round(round(gates.values[place] / STEP) * STEP, 2))
    st.slider(
        name,
        LOWEST,
        HIGHEST,
        step=STEP,
        key=key,
        help=help_text("manual"),
        on_change=_moved,
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


def _moved(key: str, place: int, values: tuple[float, ...]) -> None:
    """The moved gate changes; the others stay exactly at what they were."""
    changed = [st.session_state[key] if i == place else v for i, v in enumerate(values)]
    keep("gates", as_text(changed))


def has_router(run: Run) -> bool:
    """Whether a router sets the gates of this run."""
    return run.config().router.gates == "learned"


def columns_of(
    run: Run, row: Row, kinds: Sequence[str], gates: Gates, other: Run | None
) -> list[Column]:
    """The columns to ask, in their order."""
    own = trained_setting(run, row)
    how = "" if has_router(run) else f" ({run.config().router.gates} gates)"
    manual = gates.setting or own
    columns = {
        "base": Column("base", "Base, no adapter", run, "", row),
        "learned": Column("learned", f"{run.name}{how}", run, own, row),
        "manual": Column("manual", MANUAL.capitalize(), run, manual, row),
    }
    if other is not None:
        with showing_errors():
            columns["other"] = _other_column(other, row)
    return [columns[kind] for kind in kinds if kind in columns]


def _other_column(other: Run, row: Row) -> Column:
    known = {r.prompt: r for r in reversed(cached.rows_of(other))}.get(row.prompt, row)
    gates = trained_setting(other, known)
    skills = known.skills if gates == "oracle" else ()
    asked = Row(skills, row.prompt, row.response, row.split)
    return Column("other", other.name, other, gates, asked)
