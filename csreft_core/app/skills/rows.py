"""The rows of a skill set: to read, to edit where they are few, and to download."""

from functools import partial
from pathlib import Path

import pandas as pd
import streamlit as st

from csreft_core.app.figures.figure import skill_subject
from csreft_core.app.figures.source import Source
from csreft_core.app.page.cached import stamp_of
from csreft_core.app.page.widgets import offer_file
from csreft_core.app.skills import choice as skill_choice
from csreft_core.app.skills.uploads import edited_set
from csreft_core.skills.skill_set import CELLS, SPLITS, SkillSet, as_cells, as_csv, as_jsonl

MOST_EDITED = 200
_ABOUT_CSV = (
    "For a spreadsheet: a text that begins with =, +, -, @ or a tab gets an apostrophe in "
    "front, or it would be run as a formula."
)


def show_rows(source: Source) -> None:
    """The rows; a small set can be edited and saved as a new file."""
    skill_set = skill_subject(source).skill_set
    frame = as_frame(skill_set)
    if len(frame) > MOST_EDITED:
        st.dataframe(frame, hide_index=True, height=420)
        st.caption(
            f"{len(frame):,} rows. Up to {MOST_EDITED} can be edited here; download the file, edit "
            "it and upload it again."
        )
    else:
        _edit(source, frame)
    _download(skill_set)


def as_frame(skill_set: SkillSet) -> pd.DataFrame:
    """The rows as a table of texts; several skills stand in a cell as JSON, as in the CSV file."""
    return pd.DataFrame(map(as_cells, skill_set.rows), columns=list(CELLS), dtype="str")


def _edit(source: Source, frame: pd.DataFrame) -> None:
    edited = st.data_editor(
        frame,
        key=f"edit-{source.path}-{stamp_of(Path(source.path))[1]}",
        num_rows="dynamic",
        hide_index=True,
        height=min(520, 80 + 35 * len(frame)),
        column_config={
            "skill": st.column_config.TextColumn(
                help='A name; several as a list, ["french", "plural"]; empty for none.'
            ),
            "prompt": st.column_config.TextColumn(required=True, width="large"),
            "response": st.column_config.TextColumn(required=True, width="medium"),
            "split": st.column_config.SelectboxColumn(
                options=list(SPLITS), help="Empty: drawn by a shuffle."
            ),
            "item": st.column_config.TextColumn(
                help="What the prompt asks about, as it stands in it; may be empty. Intervals are "
                "over items and wordings where it is known."
            ),
        },
    )
    st.caption(
        "Change a cell, add a row at the end, or mark rows and delete them. Saving makes a new "
        "file: a run keeps the rows it was trained on."
    )
    changed = not edited.equals(frame)
    if st.button(
        "Save as a new skill set", key="edit-save", icon=":material/save:", disabled=not changed
    ):
        rows = [{str(k): v for k, v in row.items()} for row in edited.to_dict("records")]
        skill_choice.use(edited_set(rows))
        st.toast("Saved; the figures now show the new skill set.", icon=":material/check:")
        st.rerun()


def _download(skill_set: SkillSet) -> None:
    with st.container(horizontal=True):
        for label, write, ending, help in (
            ("JSONL", as_jsonl, "jsonl", "Every text as it is."),
            ("CSV", as_csv, "csv", _ABOUT_CSV),
        ):
            content = partial(write, skill_set.rows)
            offer_file(label, content, f"skills.{ending}", key=f"rows-{ending}", help=help)
