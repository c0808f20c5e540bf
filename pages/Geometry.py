"""Geometry: what the subspaces of the skills share, next to what random ones share."""

import streamlit as st

from csreft_core.app.page.shell import offer_training, showing_errors, start_page

with start_page("Geometry", "Do the skills share directions?") as run:
    from csreft_core.app import geometry
    from csreft_core.app.page.parts import choose_part
    from csreft_core.app.page.prompts import can_answer, wants_answers

    if run is None:
        offer_training("There is no finished run to show. Train one.")
    elif can_answer(run) and wants_answers(run):
        geometry.intro(run)
        layer, group = geometry.choose_place(run)
        part, panel = choose_part("geometry-part", geometry.PARTS)
        with panel, showing_errors():
            if part == geometry.SHARED:
                left, right = st.columns(2, gap="large")
                with left:
                    geometry.show_pairs(run, layer, group)
                with right, showing_errors():
                    geometry.show_gram(run, layer, group)
            elif part == geometry.REACH:
                geometry.show_reach(run, layer, group)
            elif part == geometry.TRAINING:
                geometry.show_training(run, layer, group)
            else:
                geometry.show_seeds(run, layer, group)
