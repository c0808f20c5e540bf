"""Router: what it decides on a prompt and on held-out prompts, and whether that is needed."""

import streamlit as st

from csreft_core.app.page.shell import showing_errors, start_page

with start_page("Router", "Router") as run:
    from csreft_core.app.gates import panels as router
    from csreft_core.app.gates import rows as router_rows
    from csreft_core.app.page import prompts
    from csreft_core.app.page.parts import choose_part

    router.intro(run)
    if run is not None and prompts.can_answer(run) and prompts.wants_answers(run):
        router.facts(run)
        part, panel = choose_part("router-part", router.PARTS)
        with panel, showing_errors():
            if part == router.ONE_PROMPT:
                row = prompts.choose_prompt(run)
                router.choose_row(run)
                if prompts.wants_answers(run, row):
                    left, right = st.columns(2, gap="large")
                    with left, showing_errors():
                        router.show_gates(run, row)
                    with right, showing_errors():
                        router.show_edit(run, row)
                    with showing_errors():
                        router.show_tokens(run, row)
                    router.show_words(run, row)
            else:
                look, split = router_rows.choose_look(run)
                router_rows.show_held_out(run, look, split)
