"""The parts of a long page as tabs: only the open one is computed and drawn."""

from collections.abc import Sequence

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from csreft_core.app.page.state import remembered, written


def choose_part(name: str, parts: Sequence[str]) -> tuple[str, DeltaGenerator]:
    """Draw the tabs; the open one's name, which stays in the URL, and where its figures go.

    Args:
        name: Of the choice in the URL; its own for each page.
        parts: Labels, the first one open by default.
    """
    part = remembered(name, parts[0], parts)
    tabs = st.tabs(list(parts), key=name, on_change=written, args=(name,))
    return part, tabs[list(parts).index(part)]
