"""Geometry."""

import streamlit as st

from csreft_core.ui.shell import start_page

with start_page("Geometry") as run:
    st.title("Geometry", anchor=False)
