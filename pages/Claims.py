"""Claims: what the papers claim, and what comes out here."""

import streamlit as st

from csreft_core.app import claims
from csreft_core.app.page.parts import choose_part
from csreft_core.app.page.shell import showing_errors, start_page

with start_page("Claims"):
    st.title("Do the papers' claims hold here?", anchor=False)
    part, panel = choose_part("claims-part", claims.PARTS)
    with panel, showing_errors():
        if part == claims.VERDICTS:
            claims.show_verdicts()
        elif part == claims.PARAMETERS:
            claims.show_parameters()
        elif part == claims.RESULTS:
            claims.show_results()
        else:
            claims.show_release()
