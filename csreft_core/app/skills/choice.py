"""Which skill set the next run learns: a shipped one, or one's own file or lines.

The Skills page and the Train page draw the same choice. It writes `data.path` and
`data.skill_column` of the settings; a file of one's own is checked and kept first.
"""

from pathlib import Path

import pandas as pd
import streamlit as st

from csreft_core.app.page import cached, settings
from csreft_core.app.page.markup import plain
from csreft_core.app.skills.uploads import MAX_BYTES, MAX_ROWS, Upload, is_kept, keep, open_upload
from csreft_core.app.skills.uploads import skill_set_of as rows_of_upload
from csreft_core.config import Config
from csreft_core.errors import ConfigError, CsreftError
from csreft_core.skills.formats.column_mapping import ColumnMapping, known_form, suggest_mapping
from csreft_core.skills.formats.files import SUFFIXES
from csreft_core.skills.formats.rows import as_rows
from csreft_core.skills.skill_set import CELLS, SHIPPED, SkillSet, as_cells

_SETS = (*SHIPPED, "own")
_LABELS = {
    "four": "Four skills",
    "six": "Six skills",
    "eight": "Eight skills",
    "two_skills": "Pairs of skills",
    "english": "English",
    "own": "Your own",
}
FORM = '{"skill": "plural", "prompt": "What is the plural of dog?", "response": "dogs"}'
_NONE = "(none)"
_ONE = "one skill for the whole file"
_PREVIEW = 5


def choose() -> None:
    """Draw the choice; what is chosen stands in the settings, so in the address."""
    path = str(settings.current("data.path"))
    if not st.session_state.get("own-data") or path not in SHIPPED:
        st.session_state["skill-set"] = path if path in SHIPPED else "own"
    st.segmented_control(
        "Skills to learn",
        _SETS,
        key="skill-set",
        required=True,
        format_func=lambda name: _LABELS[name],
        on_change=_take_set,
        help="What the adapter is trained on; the run keeps a copy.\n\n`data.path`",
    )
    if st.session_state["skill-set"] == "own":
        _own()


def _take_set() -> None:
    chosen = st.session_state["skill-set"]
    st.session_state["own-data"] = chosen == "own"
    if chosen in SHIPPED:
        settings.change("data.path", chosen)
        settings.change("data.skill_column", "skill")


def skill_set_of(config: Config) -> SkillSet:
    """The rows of the config's skill set.

    Raises:
        ConfigError: a file that was not uploaded here, or nothing given yet.
        SkillSetError: what is wrong with it.
    """
    path = config.data.path
    if st.session_state["skill-set"] == "own" and path in SHIPPED:
        raise ConfigError("Give your skills: upload a file or paste lines.")
    if path not in SHIPPED and not is_kept(path):
        raise ConfigError(
            f"data.path {path!r} was not given on this page; upload the file, or use the command "
            "line, which reads every path."
        )
    return cached.read_skill_set(path, config.data.skill_column)


def _own() -> None:
    st.caption(
        "JSONL with `skill`, `prompt` and `response` a line, JSON, or CSV with these columns; "
        "Alpaca, chat and question files are read too, and other columns can be mapped. At most "
        f"{MAX_BYTES // 1_000_000} MB and {MAX_ROWS:,} rows. A base that knows whole words only, "
        "such as pocket, can write no others; Skills names them."
    )
    left, right = st.columns(2)
    left.file_uploader(
        "A file",
        type=[suffix[1:] for suffix in SUFFIXES],
        key="upload",
        on_change=_take_upload,
        args=("upload",),
        max_upload_size=5,
    )
    right.text_area(
        "Or paste the lines",
        key="pasted",
        placeholder=FORM,
        max_chars=MAX_BYTES,
        height=110,
        on_change=_take_upload,
        args=("pasted",),
    )
    content = _content()
    if content is None:
        return
    problem = st.session_state.get("own-problem")
    if problem:
        st.error(f"{plain(problem)}. What was chosen before stays.")
    _show_notes()
    try:
        upload = _open(*content, not st.session_state.get("map-no-header"))
    except CsreftError:
        return  # it is the problem that is shown
    _map_columns(upload)


def _show_notes() -> None:
    """What was not used of the file, or read in an unusual way."""
    notes = st.session_state.get("own-notes") or ()
    if notes:
        st.caption("The file was read; please look at these notes:")
        st.code("\n".join(notes), language=None, wrap_lines=True)


def _take_upload(kind: str) -> None:
    """Callback of both fields: keep the skill set if its columns are known."""
    st.session_state.update({"own-from": kind, "own-notes": (), "map-no-header": False})
    content = _content()
    if content is None:
        st.session_state["own-problem"] = ""
        return
    try:
        upload = _open(*content)
        st.session_state["own-problem"] = ""
        if upload.is_known:
            use(rows_of_upload(upload))
    except CsreftError as error:
        st.session_state["own-problem"] = str(error)


def _content() -> tuple[str, bytes] | None:
    """Name and bytes of what was given last; None if that is empty now."""
    if st.session_state.get("own-from") == "pasted":
        text = (st.session_state.get("pasted") or "").strip()
        ending = "json" if text.startswith(("{", "[")) else "csv"
        # Half characters can be typed into a request, though not into a browser.
        data = text.encode("utf-8", errors="surrogatepass")
        return (f"pasted.{ending}", data) if text else None
    file = st.session_state.get("upload")
    return None if file is None else (file.name, file.getvalue())


@st.cache_data(max_entries=4, show_spinner="Reading the file …")
def _open(name: str, data: bytes, header: bool = True) -> Upload:
    return open_upload(name, data, header=header)


def use(skill_set: SkillSet) -> None:
    """Keep a skill set and make it that of the next run."""
    path = keep(skill_set)
    st.session_state["own-notes"] = skill_set.notes
    settings.change("data.path", str(short(path)))
    settings.change("data.skill_column", "skill")


def short(path: Path) -> Path:
    """Relative to the folder that the app runs in, where it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _map_columns(upload: Upload) -> None:
    """Say what the columns mean, with a preview."""
    form, columns = known_form(upload.columns), list(upload.columns)
    guess = suggest_mapping(upload.columns)
    title = f"Columns: read as {form}" if form else "Columns: say what they mean"
    with st.expander(title, expanded=form is None, icon=":material/view_column:"):
        if form is None and upload.is_table:
            st.checkbox(
                "The first line is a row, not the names of the columns", key="map-no-header"
            )
        with st.grid(5, min_column_width=150):
            prompt = response = addition = None
            if form is None:
                prompt = _select("Prompt", columns, guess.prompt)
                response = _select("Response", columns, guess.response)
                addition = _select("Input, below the prompt", columns, guess.input)
            skill = _select("Skill", [_ONE, *columns], guess.skill)
            split = _select("Split", columns, guess.split)
            same_skill = None
            if skill == _ONE:
                same_skill = st.text_input("The skill", key="map-one", max_chars=80).strip() or None
        mapping = ColumnMapping(
            prompt, response, addition, None if skill == _ONE else skill, same_skill, split
        )
        _preview(upload, mapping)
        st.button(
            "Use these columns",
            key="map-use",
            on_click=_use_mapping,
            args=(upload, mapping),
            type="secondary" if form else "primary",
            icon=":material/check:",
            disabled=form is None and (prompt is None or response is None),
        )


def _select(label: str, options: list[str], guess: str | None) -> str | None:
    every = [_NONE, *options]
    value = st.selectbox(
        label, every, index=every.index(guess) if guess in every else 0, key=f"map-{label}"
    )
    return None if value == _NONE else value


def _preview(upload: Upload, mapping: ColumnMapping) -> None:
    first = upload.records[:_PREVIEW]
    if mapping.prompt is None and not upload.is_known:
        frame = pd.DataFrame([{k: str(v) for k, v in record.fields.items()} for record in first])
    else:
        try:
            rows = as_rows(first, upload.name, mapping).rows
        except CsreftError as error:
            st.error(f"{plain(error)}.")
            return
        frame = pd.DataFrame([as_cells(item.row) for item in rows], columns=list(CELLS))
    st.dataframe(frame, hide_index=True)
    st.caption(f"The first {len(frame)} of {len(upload.records):,} rows.")


def _use_mapping(upload: Upload, mapping: ColumnMapping) -> None:
    st.session_state["own-problem"] = ""
    try:
        use(rows_of_upload(upload, mapping))
    except CsreftError as error:
        st.session_state["own-problem"] = str(error)
