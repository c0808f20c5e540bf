"""Train: the settings of a run, its start, and its curves while it learns."""

import streamlit as st

from csreft_core.app.page import library
from csreft_core.app.page.shell import showing_errors, start_page
from csreft_core.app.train import live
from csreft_core.app.train import panels as train

with start_page("Train") as run:
    st.title("Train", anchor=False)
    own = run is not None and not library.is_example(library.run_id(run))
    if run is not None and own:
        live.watch(run)
    st.header("New run", anchor=False, divider="gray" if own else False)
    with showing_errors():
        train.show_settings()
        train.start_or_say_why_not()
    if run is not None and not own:
        st.header("What a finished run looks like", anchor=False, divider="gray")
        live.watch(run)
