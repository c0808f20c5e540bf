"""Interference: what each gate does to the skills that it was not trained for."""

import streamlit as st

from csreft_core.app.page.shell import showing_errors, start_page

with start_page("Interference", "Interference") as run:
    from csreft_core.app.interference import panels as interference
    from csreft_core.app.interference import prompt as gate_patterns
    from csreft_core.app.interference import single_skill
    from csreft_core.app.page import prompts
    from csreft_core.app.page.parts import choose_part

    interference.intro(run)
    if run is not None and prompts.can_answer(run) and prompts.wants_answers(run):
        several = interference.several_subspaces(run)
        few = gate_patterns.few_subspaces(run)
        part, panel = choose_part("i-part", interference.PARTS)
        with panel, showing_errors():
            if part == interference.SETTINGS:
                rows = interference.choose_rows(run)
                left, right = st.columns([3, 2], gap="large")
                with left, showing_errors():
                    interference.show_settings(run, rows)
                with right, showing_errors():
                    interference.show_cell(run, rows)
                interference.show_prompts(run, rows)
            elif part == interference.PAIRS:
                rows = interference.choose_rows(run)
                if several:
                    left, right = st.columns([3, 2], gap="large")
                    with left, showing_errors():
                        interference.show_pairs(run, rows)
                    with right, showing_errors():
                        interference.show_bottleneck(run, rows)
                    with showing_errors():
                        interference.show_overlap(run, rows)
                if few:
                    interference.show_regret(run, rows)
            elif part == interference.OWN_PROMPT:
                row = prompts.choose_prompt(run)
                if few and prompts.wants_answers(run, row):
                    answer = gate_patterns.choose_answer(run, row)
                    gate_patterns.show_patterns(run, row, answer)
                    gate_patterns.show_shares(run, row, answer)
            elif several:
                single_skill.show_single_skill(run)
