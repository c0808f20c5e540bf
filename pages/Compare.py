"""Compare."""

import streamlit as st

from csreft_core.ui.shell import start_page

with start_page("Compare") as run:
    st.title("Compare", anchor=False)
