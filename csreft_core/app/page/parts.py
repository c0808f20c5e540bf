"""The parts of a long page, as tabs or folded: only what is open is computed and drawn."""

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from csreft_core.app.page.state import keep_widget, recall


def choose_part(name: str, parts: Sequence[str]) -> tuple[str, DeltaGenerator]:
    """Draw the tabs; the open one's name, which stays in the URL, and where its figures go.

    Args:
        name: Of the choice in the URL; its own for each page.
        parts: Labels, the first one open by default.
    """
    part = recall(name, parts[0], parts)
    tabs = st.tabs(list(parts), key=name, on_change=keep_widget, args=(name,))
    return part, tabs[list(parts).index(part)]


def fold(label: str, draw: Callable[[], object], *, key: str, **looks: Any) -> None:
    """A folded part of a page; it is computed and drawn only while it is open.

    Args:
        label: What one clicks on.
        draw: Draws the part.
        key: Of the state, whether it is open.
        looks: More arguments of `st.expander`.
    """
    panel = st.expander(label, key=key, on_change="rerun", **looks)
    if panel.open:
        with panel:
            draw()
