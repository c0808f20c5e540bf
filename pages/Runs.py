"""Runs: every run, two of them side by side, delete with undo, download."""

import streamlit as st

from csreft_core.app import runs
from csreft_core.app.page import library
from csreft_core.app.page.shell import showing_errors, start_page

with start_page("Runs") as run:
    st.title("Runs", anchor=False)
    everything = library.all_runs()
    with showing_errors():
        runs.show_undo()
    runs.show_table(everything)
    if run is not None:
        with showing_errors():
            runs.show_comparison(run, everything)
        with showing_errors():
            runs.show_keeping(run)
