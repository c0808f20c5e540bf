"""States."""

import streamlit as st

from csreft_core.ui.shell import start_page

with start_page("States") as run:
    st.title("States", anchor=False)
