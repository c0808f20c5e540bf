"""What the Compare page is asked: its columns and the draw, all in the URL."""

from collections.abc import Sequence

import streamlit as st

from csreft_core.analysis.labels import MANUAL
from csreft_core.app.answers.column import Column, Sampling
from csreft_core.app.answers.manual_gates import Gates, has_router, show_value
from csreft_core.app.page import cached, library
from csreft_core.app.page.ceilings import MOST_NEW_TOKENS
from csreft_core.app.page.choices import choose
from csreft_core.app.page.markup import plain
from csreft_core.app.page.prompts import trained_setting
from csreft_core.app.page.shell import showing_errors
from csreft_core.app.page.state import forget, keep, recall
from csreft_core.app.page.widgets import help_text
from csreft_core.base.decoding_kinds import BASE_OWN, OURS
from csreft_core.inference.limits import MOST_SEED, MOST_TEMPERATURE
from csreft_core.runs.all_runs import Run
from csreft_core.skills.skill_set import Row

_KINDS = {"base": "Base", "learned": "This run", "manual": "Manual gates", "other": "Another run"}
_DEFAULT = "base,learned,manual"
_NONE = "none"
_DECODINGS = {OURS: "ours", BASE_OWN: "the base's own"}


def choose_kinds() -> tuple[str, ...]:
    """Which columns are shown; kept in the URL as `columns`."""
    text = recall("columns", _DEFAULT)
    chosen = [kind for kind in _KINDS if kind in text.split(",")]
    if not chosen and text != _NONE:
        chosen = _DEFAULT.split(",")
    show_value("compare-columns", chosen)
    st.pills(
        "Columns",
        list(_KINDS),
        selection_mode="multi",
        format_func=_KINDS.__getitem__,
        key="compare-columns",
        on_change=_keep_kinds,
        help=help_text("columns"),
        width="content",
    )
    return tuple(chosen)


def _keep_kinds() -> None:
    chosen = st.session_state["compare-columns"]
    keep("columns", ",".join(kind for kind in _KINDS if kind in chosen) or _NONE, _DEFAULT)


def choose_other(run: Run) -> Run | None:
    """The other run, by its id in the URL as `other`."""
    runs = library.other_runs(run)
    if not runs:
        st.info("There is no other run with an adapter. Train one on the Train page.")
        return None
    labels = {identity: library.label(identity) for identity in runs}
    chosen = choose("other", "Another run", labels, help=help_text("other"), width=280)
    keep("other", chosen)  # always in the address: the default changes when a run is added
    return runs[chosen]


def choose_sampling() -> Sampling:
    """How to decode, with seed and longest answer; each in the URL under its name.

    Temperature and top-p are ours: the base's own decoding has its own.
    """
    decoding = choose("decoding", "Decoding", _DECODINGS, help=help_text("decoding"), width=170)
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
    text = recall(name, f"{default:g}")
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
    show_value(key, value)
    return st.number_input(
        label,
        limits[0],
        limits[1],
        step=step,
        key=key,
        width=150,
        help=help_text(name),
        on_change=_keep_number,
        args=(name, key, f"{default:g}"),
    )


def _keep_number(name: str, key: str, default: str) -> None:
    value = st.session_state[key]
    keep(name, str(value) if isinstance(value, int) else f"{value:g}", default)


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
    question = Row(skills, row.prompt, row.response, row.split)
    return Column("other", other.name, other, gates, question)
