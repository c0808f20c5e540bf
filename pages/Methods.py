"""Methods: every method on the same work, next to each other."""

import streamlit as st

from csreft_core.app import methods
from csreft_core.app.page.parts import choose_part
from csreft_core.app.page.shell import showing_errors, start_page

with start_page("Methods"):
    st.title("Which method does best on the same work?", anchor=False)
    comparison = methods.choose_comparison()
    if comparison is not None:
        methods.show_about(comparison)
        part, panel = choose_part("m-part", methods.PARTS)
        with panel, showing_errors():
            if part == methods.QUALITY:
                methods.show_quality(comparison)
            elif part == methods.INTERFERENCE:
                methods.show_interference(comparison)
            elif part == methods.SEQUENCE:
                methods.show_sequence(comparison)
            elif part == methods.COST:
                methods.show_cost(comparison)
            else:
                methods.show_table(comparison)
