"""Interference."""

import streamlit as st

from csreft_core.ui.shell import start_page

with start_page("Interference") as run:
    st.title("Interference", anchor=False)
