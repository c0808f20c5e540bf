"""Panels of the Train page: the settings of a new run, its data, its command, its start."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from csreft_core import jobs
from csreft_core.config import ASSETS, PRESET_NOTES, PRESETS, Config, config_to_dict
from csreft_core.errors import ConfigError, CsreftError
from csreft_core.files import write_atomic
from csreft_core.runs import run_name, runs_root
from csreft_core.skills import SHIPPED, SkillSet, read_skills
from csreft_core.ui import cached, settings
from csreft_core.ui.state import forget, keep, written

_MATTERS = {
    "adapter.rank": "rank r of each subspace",
    "adapter.constraint": "constraint on the subspaces",
    "train.steps": "steps",
    "router.supervision": "weight of the skill labels",
    "train.lr": "learning rate",
    "train.seed": "seed",
}
_ELSEWHERE = ("data.path", "adapter.layers", *_MATTERS)
_MOST_BYTES = 5_000_000
_SETS = ("four", "six", "two_skills", "own")
_LABELS = {"four": "Four skills", "six": "Six skills", "two_skills": "Pairs of skills",
           "own": "Your own"}  # fmt: skip
_FORM = '{"skill": "plural", "prompt": "What is the plural of dog?", "response": "dogs"}'


def show_settings() -> None:
    """The form of a new run, down to the button that starts it."""
    settings.chosen_preset()
    settings.overrides()
    st.selectbox(
        "Preset", list(PRESETS), key="preset", on_change=settings.choose_preset,
        help="A named configuration to start from. Choosing one takes your changes back.",
    )  # fmt: skip
    st.caption(PRESET_NOTES[st.session_state["preset"]])
    _choose_data()
    with st.grid(4, min_column_width=150):
        _choose_layers()
        for path, label in _MATTERS.items():
            settings.draw(path, label)
    panel = st.expander(
        "All other settings", icon=":material/tune:", key="all-settings", on_change="rerun"
    )
    if panel.open:
        with panel:
            _show_all_settings()


def _show_all_settings() -> None:
    for group in settings.GROUPS:
        st.markdown(f"**{group}**")
        with st.grid(4, min_column_width=170):
            for path in settings.all_paths():
                if path.startswith(f"{group}.") and path not in _ELSEWHERE:
                    settings.draw(path)


def start_or_say_why_not() -> None:
    """The name, the config and the command, and the button; or what does not fit."""
    default = run_name(st.session_state["preset"], runs_root())
    st.session_state["name"] = st.session_state.get("kept-name") or default
    st.text_input(
        "Name of the run", key="name", max_chars=80, on_change=_name_written,
        help="Its folder's name: letters, digits, '.', '_' and '-'.",
    )  # fmt: skip
    problem = None
    try:
        config = settings.build()
        skill_set = _skill_set(config)
    except CsreftError as error:
        problem, config, skill_set = str(error), None, None
    clicked = st.button(
        "Start training", type="primary", icon=":material/play_arrow:", key="start",
        disabled=problem is not None,
        help="A process of its own: it goes on when you close this page.",
    )  # fmt: skip
    if config is None or skill_set is None:
        st.error(f"{problem}")
        return
    _show_command(config)
    if clicked:
        run = jobs.submit(config, skill_set, st.session_state["name"])
        keep("run", run.name)
        st.session_state.pop("kept-name", None)
        st.rerun()


def _name_written() -> None:
    st.session_state["kept-name"] = st.session_state["name"].strip()


def _show_command(config: Config) -> None:
    panel = st.expander(
        "The command and the config that this button uses", icon=":material/terminal:",
        key="command", on_change="rerun",
    )  # fmt: skip
    if not panel.open:
        return
    with panel:
        out = _short(runs_root() / st.session_state["name"])
        line = jobs.command_line(config, out, st.session_state["preset"])
        st.code(line, language="bash", wrap_lines=True)
        st.code(json.dumps(config_to_dict(config), indent=2), language="json", height=320)


def _short(path: Path) -> Path:
    """Relative to the folder that the app runs in, where it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _n_layers(base_path: str) -> int | None:
    """Blocks of a base, from its folder's config; None where that needs loading it."""
    folder = ASSETS / "pocket" if base_path == "pocket" else Path(base_path)
    try:
        tree = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    names = ("num_hidden_layers", "n_layer", "num_layers")
    found = [tree.get(name) for name in names if isinstance(tree.get(name), int)]
    return found[0] if found else None


def _choose_layers() -> None:
    n, layers = _n_layers(str(settings.current("base.path"))), settings.current("adapter.layers")
    known = n is not None and isinstance(layers, list) and all(x in range(n) for x in layers)
    if n is None or not known:
        settings.draw("adapter.layers")
        return
    st.session_state["layers"] = layers
    st.multiselect(
        "edited layers", range(n), key="layers", on_change=_layers_written,
        help=settings.setting("adapter.layers").help + f" The base has {n}.\n\n`adapter.layers`",
    )  # fmt: skip


def _layers_written() -> None:
    settings.change("adapter.layers", sorted(st.session_state["layers"]))


def _choose_data() -> None:
    path = str(settings.current("data.path"))
    if not st.session_state.get("own-data") or path not in SHIPPED:
        st.session_state["skill-set"] = path if path in SHIPPED else "own"
    st.segmented_control(
        "Skills to learn", _SETS, key="skill-set", required=True,
        format_func=lambda name: _LABELS[name], on_change=_skill_set_chosen,
        help="What the adapter is trained on; the run keeps a copy.\n\n`data.path`",
    )  # fmt: skip
    if st.session_state["skill-set"] == "own":
        _own_data()


def _skill_set_chosen() -> None:
    chosen = st.session_state["skill-set"]
    st.session_state["own-data"] = chosen == "own"
    if chosen in SHIPPED:
        settings.change("data.path", chosen)


def _own_data() -> None:
    st.caption(
        "One prompt a line, as JSON with `skill`, `prompt` and `response`. CSV with these columns, "
        "Alpaca and chat files are read too. The pocket base knows only the words of the shipped "
        "skill sets."
    )
    left, right = st.columns(2)
    file = left.file_uploader(
        "A file, at most 5 MB", type=["jsonl", "json", "csv"], key="upload", max_upload_size=5
    )
    pasted = right.text_area(
        "Or paste the lines", key="pasted", placeholder=_FORM, max_chars=_MOST_BYTES, height=110
    )
    if file is not None:
        suffix = file.name.rpartition(".")[2].lower()
        _keep_own(file.getvalue(), suffix if suffix in ("jsonl", "json", "csv") else "jsonl")
    elif pasted and pasted.strip():
        _keep_own(pasted.encode("utf-8"), "jsonl")


def _keep_own(data: bytes, suffix: str) -> None:
    """Keep the bytes under a name of their own; the name of an upload is never used as a path."""
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"the skill set has {len(data)} bytes, at most {_MOST_BYTES} are read")
    folder = _uploads()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(data).hexdigest()[:12]}.{suffix}"
    if not path.exists():
        write_atomic(path, data)
    if settings.current("data.path") != str(_short(path)):
        settings.change("data.path", str(_short(path)))


def _uploads() -> Path:
    return runs_root() / ".uploads"


def _skill_set(config: Config) -> SkillSet:
    """The rows of the config, with a line about them.

    Raises:
        ConfigError: a file that was not uploaded here, or nothing given yet.
        SkillSetError: what is wrong with it.
    """
    path = config.data.path
    if st.session_state["skill-set"] == "own" and path in SHIPPED:
        raise ConfigError("Give your skills: upload a file or paste lines.")
    if path not in SHIPPED and Path(path).absolute().parent != _uploads().absolute():
        raise ConfigError(
            f"data.path {path!r} was not given on this page; upload the file, or use the command "
            "line, which reads every path."
        )
    rows = cached.shipped_rows(path, config.data.skill_column)
    names = tuple(dict.fromkeys(name for row in rows for name in row.skills))
    _show_rows(names, rows)
    return SkillSet(rows, names) if path in SHIPPED else read_skills(path, config.data.skill_column)


def _show_rows(names: tuple[str, ...], rows: tuple[Any, ...]) -> None:
    n = sum(row.split == "train" for row in rows)
    with st.expander(
        f"{len(names)} skills, {n} training prompts: {', '.join(names)}", icon=":material/list:"
    ):
        sample = rows[:: max(1, len(rows) // 30)][:30]
        table = [("+".join(r.skills), r.split, r.prompt, r.response) for r in sample]
        columns = ["skill", "split", "prompt", "response"]
        st.dataframe(pd.DataFrame(table, columns=columns), hide_index=True, height=260)


def duplicate(config: Config) -> None:
    """Callback: the settings become those of a run, to be changed and started again."""
    settings.take_over(config)
    st.session_state["own-data"] = False
    forget("name")
    st.toast("The settings below are now those of this run.", icon=":material/content_copy:")


__all__ = ["duplicate", "show_settings", "start_or_say_why_not", "written"]
