"""Skills: choose, upload, check, edit and download the skill set of the next run."""

import streamlit as st

from csreft_core.app.figures.source import of_skills
from csreft_core.app.page.parts import choose_part
from csreft_core.app.page.shell import showing_errors, start_page
from csreft_core.app.skills import panels as skills
from csreft_core.app.skills import rows as skill_rows

with start_page("Skills"):
    config = None
    with showing_errors():
        config = skills.choose()
    if config is None:
        skills.why_no_set()
    else:
        source = of_skills(config)
        part, panel = choose_part("skills-part", skills.PARTS)
        with panel, showing_errors():
            if part == skills.BALANCE:
                skills.show_skills(source)
                skills.show_balance(source)
                skills.show_unwritable(source)
            elif part == skills.SEEN:
                skills.show_reading(source, config)
                skills.show_batch(source, config)
                left, right = st.columns([3, 2], gap="large")
                with left, showing_errors():
                    skills.show_lengths(source)
                with right, showing_errors():
                    skills.show_unknown(source)
                    skills.show_special(source)
            elif part == skills.LEAKS:
                left, right = st.columns(2, gap="large")
                with left, showing_errors():
                    skills.show_leaks(source)
                with right, showing_errors():
                    skills.show_similarity(source)
            else:
                skill_rows.show_rows(source)
        skills.to_training()
