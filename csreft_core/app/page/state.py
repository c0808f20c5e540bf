"""Choices that stay: in the URL, so that a link shows the same, and over a page switch.

A session holds names and numbers only, never tensors.
"""

from collections.abc import Collection
from contextlib import suppress

import streamlit as st

from csreft_core.app.page.ceilings import MOST_CHARACTERS


def recall(name: str, default: str, options: Collection[str] | None = None) -> str:
    """The value of a choice: the URL's, else the session's, else the default.

    It is put into the widget with the key `name`, which must be drawn after this call with
    `on_change=keep_widget, args=(name,)`.

    Args:
        name: Of the choice; the key of its widget and of its place in the URL.
        default: Is left out of the URL.
        options: What is allowed; None allows every text that is not too long.
    """
    candidates = (st.query_params.get(name), st.session_state.get(_session_key(name)))
    allowed = (c for c in candidates if c is not None and _fits(c, options))
    value = next(allowed, default)
    st.session_state[name] = value
    keep(name, value, default)
    return value


def _fits(value: str, options: Collection[str] | None) -> bool:
    return len(value) <= MOST_CHARACTERS if options is None else value in options


def keep(name: str, value: str, default: str | None = None) -> None:
    """Write a choice to the session and, unless it is the default, to the URL."""
    st.session_state[_session_key(name)] = value
    if value != default:
        if st.query_params.get(name) != value:
            st.query_params[name] = value
    else:
        with suppress(KeyError):
            del st.query_params[name]


def keep_widget(name: str) -> None:
    """Callback of a widget: its new value goes to session and URL."""
    keep(name, st.session_state[name])


def forget(name: str) -> None:
    """Take a choice back, so that its default holds."""
    st.session_state.pop(_session_key(name), None)
    with suppress(KeyError):
        del st.query_params[name]


def _session_key(name: str) -> str:
    """The session's own copy; a widget's value is gone when another page is drawn."""
    return f"kept-{name}"
