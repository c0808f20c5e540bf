"""Widgets whose value stays: in the URL, so that a link shows the same, and over a page switch."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import streamlit as st

from csreft_core.app.page.state import keep_widget, recall

SEGMENTS = partial(st.segmented_control, required=True)
"""For `choose`: few options, side by side."""


def choose(
    name: str,
    label: str,
    options: Mapping[str, str] | Sequence[str],
    default: str | None = None,
    *,
    widget: Callable[..., Any] = st.selectbox,
    **looks: Any,
) -> str:
    """One of several options; gives the chosen one.

    Args:
        name: Of the choice in the URL and the session, and the widget's key.
        label: Above the widget.
        options: What can be chosen; a mapping also says how each is shown.
        default: Is left out of the URL; None takes the first option.
        widget: A list, `SEGMENTS`, or another widget of Streamlit for one choice.
        looks: More arguments of the widget.
    """
    chosen = recall(name, next(iter(options)) if default is None else default, options)
    if isinstance(options, Mapping):
        looks["format_func"] = lambda option: options.get(option, option)
    widget(label, list(options), key=name, on_change=keep_widget, args=(name,), **looks)
    return chosen


def ask_text(name: str, label: str, default: str = "", **looks: Any) -> str:
    """A line of text; gives it as it was written.

    Args:
        name: Of the text in the URL and the session, and the widget's key.
        label: Above the widget.
        default: Is left out of the URL.
        looks: More arguments of `st.text_input`.
    """
    text = recall(name, default)
    st.text_input(label, key=name, on_change=keep_widget, args=(name,), **looks)
    return text
