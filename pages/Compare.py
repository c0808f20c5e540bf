"""Compare: one prompt and up to four columns of answers, what was promoted, and one gate's dose."""

import streamlit as st

from csreft_core.app.page.shell import showing_errors, start_page

with start_page("Compare", "Compare") as run:
    from csreft_core.app.answers import panels as compare
    from csreft_core.app.page import prompts

    compare.intro(run)
    if run is not None and prompts.can_answer(run):
        row = prompts.choose_prompt(run)
        question = compare.choose_question(run, row)
        if question is not None:
            with showing_errors():
                compare.show_answers(question)
            left, right = st.columns(2, gap="large")
            with left, showing_errors():
                compare.show_next_token(question)
            with right, showing_errors():
                compare.show_dose(question)
