"""Interference: what each gate does to the skills that it was not trained for."""

import streamlit as st

from csreft_core.ui import gate_patterns, interference, prompts, single_skill
from csreft_core.ui.shell import showing_errors, start_page

with start_page("Interference") as run:
    st.title("Interference", anchor=False)
    interference.intro(run)
    if run is not None and prompts.can_answer(run) and prompts.wants_answers(run):
        several = interference.several_subspaces(run)
        few = gate_patterns.few_subspaces(run)
        st.header("On held-out prompts", anchor=False, divider="gray")
        rows = interference.choose_rows(run)
        left, right = st.columns([3, 2], gap="large")
        with left, showing_errors():
            interference.show_settings(run, rows)
        with right, showing_errors():
            interference.show_cell(run, rows)
        with showing_errors():
            interference.show_prompts(run, rows)
        if several:
            left, right = st.columns([3, 2], gap="large")
            with left, showing_errors():
                interference.show_pairs(run, rows)
            with right, showing_errors():
                interference.show_bottleneck(run, rows)
        st.header("On your own prompt", anchor=False, divider="gray")
        row = prompts.choose_prompt(run)
        if few:
            with showing_errors():
                answer = gate_patterns.choose_answer(run, row)
                gate_patterns.show_patterns(run, row, answer)
                gate_patterns.show_shares(run, row, answer)
        st.header("On request", anchor=False, divider="gray")
        if few:
            with showing_errors():
                interference.show_regret(run, rows)
        if several:
            with showing_errors():
                interference.show_overlap(run, rows)
            st.subheader("Train on one skill, measure all", anchor=False)
            with showing_errors():
                single_skill.show_single_skill(run)
