"""A base in memory: load it with progress, cancel, unload; what was measured."""

import streamlit as st
import torch

from csreft_core.analysis.base import sentences as say
from csreft_core.analysis.base import tables
from csreft_core.app.page import base_loading, cached
from csreft_core.app.page.markup import plain
from csreft_core.app.page.widgets import duration, help_text, show_data
from csreft_core.base.devices import free_bytes
from csreft_core.charts.base import size_text
from csreft_core.config import BaseConfig, Config
from csreft_core.inference.loaded_bases import LoadedBase

_SHIPPED = BaseConfig()


def show(base: BaseConfig, *, has_room: bool) -> LoadedBase | None:
    """The base's state in memory with its buttons; gives it once it is there.

    Args:
        base: The chosen one.
        has_room: Whether its weights fit.
    """
    # The shipped base takes a moment and 6 MB: one need not ask for it, unless it was unloaded.
    if base == _SHIPPED and not st.session_state.get("base-unloaded"):
        cached.engine_of_base(base)
    held = cached.bases().find(base)
    if held is not None:
        _show_held(base)
    else:
        base_loading.show(base, has_room=has_room)
    _show_others(base)
    return held


def _show_held(base: BaseConfig) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge("in memory", icon=":material/memory:", color="green")
        _unload_button(base, "Unload")


def _unload_button(base: BaseConfig, label: str) -> None:
    st.button(
        label,
        icon=":material/eject:",
        key=f"unload-{base.path}-{base.precision}-{base.device}",
        on_click=_unload,
        args=(base,),
        help=help_text("unload"),
    )


def _unload(base: BaseConfig) -> None:
    st.session_state["base-unloaded"] = base == _SHIPPED
    cached.bases().unload(base)


def _show_others(base: BaseConfig) -> None:
    others = [other for other in cached.bases().everything() if other != base]
    if not others:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("Also in memory, two bases at most:")
        for other in others:
            _unload_button(other, f"Unload {plain(other.path)} ({other.precision})")


def show_measured(held: LoadedBase, config: Config) -> None:
    """What the loaded base takes and how far the estimate was from it."""
    base = held.engine.base
    table = tables.measured_table(base, tables.needed(config))
    row = table.iloc[0]
    facts = {
        "Weights, measured": (size_text(row["measured"]), "measured_weights"),
        "Estimate off by": (f"{row['error']:+.2%}", "measured_error"),
        "Parameters": (f"{base.n_parameters:,}", "measured_parameters"),
        "Layers": (str(base.n_layers), "measured_layers"),
        "Load time": (_seconds(held.seconds), "measured_time"),
        "Free now": (size_text(free_bytes(config.base.device)), "measured_free"),
        **_gpu_facts(base.device),
    }
    with st.grid(4, min_column_width=150):
        for label, (value, text) in facts.items():
            st.metric(label, value, help=help_text(text))
    st.markdown(plain(say.sentence_measured(table)))
    show_data(table, "measured")


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


def _gpu_facts(device: torch.device) -> dict[str, tuple[str, str]]:
    if device.type != "cuda":
        return {}
    return {
        "Allocated": (size_text(torch.cuda.memory_allocated(device)), "measured_allocated"),
        "Reserved": (size_text(torch.cuda.memory_reserved(device)), "measured_reserved"),
    }
