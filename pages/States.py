"""States: where the states of prompts lie, and what the edit moves."""

import streamlit as st

from csreft_core.app.page.shell import showing_errors, start_page

with start_page("States", "States") as run:
    from csreft_core.app.page.parts import choose_part
    from csreft_core.app.page.prompts import can_answer, choose_prompt, wants_answers
    from csreft_core.app.states import panels as states
    from csreft_core.app.states.view import choose_view

    states.intro(run)
    if run is not None and can_answer(run):
        row = choose_prompt(run)
        if wants_answers(run, row):
            view = choose_view(run, row)
            part, panel = choose_part("states-part", states.PARTS)
            with panel, showing_errors():
                if part == states.PICTURE:
                    states.show_states(run, view)
                elif part == states.AXES:
                    left, right = st.columns(2, gap="large")
                    with left, showing_errors():
                        states.show_scree(run, view)
                    with right:
                        states.show_coordinates(run, view)
                elif part == states.SIZE:
                    with showing_errors():
                        states.show_sizes(run, view)
                    states.show_energy(run, view)
                elif part == states.TRAINING:
                    states.show_training(run, view)
                else:
                    states.show_separation(run, view)
