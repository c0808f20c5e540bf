"""Router."""

import streamlit as st

from csreft_core.ui.shell import start_page

with start_page("Router") as run:
    st.title("Router", anchor=False)
