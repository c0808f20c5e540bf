"""Start: a shipped run is open; one sentence, its gates, and the answers with and without them."""

import streamlit as st

from csreft_core.app.page.shell import showing_errors, start_page

with start_page("Start", "Watch a router decide") as run:
    from csreft_core.app import start
    from csreft_core.app.page import library, prompts

    start.intro(run)
    if run is not None and prompts.can_answer(run):
        row = prompts.choose_prompt(run)
        if prompts.wants_answers(run, row):
            left, right = st.columns(2, gap="large")
            with left, showing_errors():
                start.show_gates(run, row)
            with right, showing_errors():
                start.show_answers(run, row)
    runs = library.all_runs()
    with showing_errors():
        start.show_paper(library.example("paper", runs), library.example("recommended", runs))
        start.offer_base()
    start.ways_onward(run)
