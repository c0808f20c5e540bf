"""Model: choose a base, see whether it fits, load it, and tick the layers to edit."""

import streamlit as st

from csreft_core.app.base import fit as base_fit
from csreft_core.app.base import load as base_load
from csreft_core.app.base import panels as model
from csreft_core.app.page.shell import showing_errors, start_page

with start_page("Model"):
    model.intro()
    choice, held = None, None
    left, right = st.columns([2, 3], gap="large")
    with left, showing_errors():
        choice = model.choose()
    if choice is not None:
        with left, showing_errors():
            held = base_load.show(choice.config.base, has_room=base_fit.has_room(choice.config))
        with right, showing_errors():
            base_fit.show_need(choice.config, choice.shape, training=choice.training)
        if held is not None:
            st.header("Was the estimate right?", anchor=False, divider="gray")
            with showing_errors():
                base_load.show_measured(held, choice.config)
        with showing_errors():
            model.show_layers(choice, held)
            model.show_use(choice)
        with showing_errors():
            base_fit.show_known(choice.config)
