"""Panels of the Train page: the settings of a new run, its data, its command, its start."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from csreft_core.app.figures.figure import skill_subject
from csreft_core.app.figures.source import of_skills
from csreft_core.app.page import base_loading, settings, starting
from csreft_core.app.page.markup import plain
from csreft_core.app.page.parts import fold
from csreft_core.app.page.state import forget, keep
from csreft_core.app.skills import choice as skill_choice
from csreft_core.app.train import duration
from csreft_core.config import PRESET_NOTES, PRESETS, Config, config_to_dict, known_bases
from csreft_core.errors import CsreftError
from csreft_core.runs import queue
from csreft_core.runs.all_runs import run_name, runs_root
from csreft_core.skills.skill_set import SkillSet
from csreft_core.skills.unwritable import FLAG, unwritable_message

_MATTERS = {
    "adapter.rank": "rank r of each subspace",
    "adapter.constraint": "constraint on the subspaces",
    "train.steps": "steps",
    "router.supervision": "weight of the skill labels",
    "train.lr": "learning rate",
    "train.seed": "seed",
}
_ELSEWHERE = ("data.path", "adapter.layers", *_MATTERS)


def show_settings() -> None:
    """The form of a new run, down to the button that starts it."""
    settings.recall_preset()
    settings.overrides()
    st.selectbox(
        "Preset",
        list(PRESETS),
        key="preset",
        on_change=settings.take_preset,
        help="A named configuration to start from. Choosing one takes your changes back.",
    )
    st.caption(PRESET_NOTES[st.session_state["preset"]])
    skill_choice.choose()
    with st.grid(4, min_column_width=150):
        _choose_layers()
        for path, label in _MATTERS.items():
            settings.draw(path, label)
    fold("All other settings", _show_all_settings, key="all-settings", icon=":material/tune:")


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
        "Name of the run",
        key="name",
        max_chars=80,
        on_change=_keep_name,
        help="Its folder's name: letters, digits, '.', '_' and '-'.",
    )
    problem = None
    try:
        config = settings.build()
        skill_set = _skill_set(config)
        if base_loading.is_missing(config.base):
            problem = f"The base {config.base.path} has to be fetched first."
    except CsreftError as error:
        problem, config, skill_set = str(error), None, None
    known = _known_unwritable(config)
    clicked = st.button(
        "Start training",
        type="primary",
        icon=":material/play_arrow:",
        key="start",
        disabled=problem is not None,
        help="A process of its own: it goes on when you close this page.",
    )
    if config is not None and skill_set is not None:
        duration.show(config, skill_set)
    if config is None or skill_set is None:
        st.error(plain(problem))
        return
    fold(
        "The command and the config that this button uses",
        lambda: _show_command(config, unwritable=known is not None),
        key="command",
        icon=":material/terminal:",
    )
    if clicked and _may_start(config):
        run = starting.submit(config, skill_set, st.session_state["name"])
        keep("run", run.name)
        st.session_state.pop("kept-name", None)
        st.rerun()


def _known_unwritable(config: Config | None) -> str | None:
    """What a first click has found of answers that the base cannot write, with a box to tick."""
    source, message = st.session_state.get("unwritable", (None, None))
    if config is None or message is None or source != of_skills(config):
        return None
    st.error(f"{plain(message)}. Change the answers, take another base, or ask a second time:")
    st.checkbox("Train all the same", key="train-unwritable")
    return message


def _may_start(config: Config) -> bool:
    """Whether the base can write all answers, or it was asked for twice; else the page says it."""
    source = of_skills(config)
    subject = skill_subject(source)
    rows = subject.skill_set.rows
    message = unwritable_message(rows, subject.encoded(rows), subject.reader.tokenizer)
    known = st.session_state.get("unwritable") == (source, message)
    allowed = message is None or (known and bool(st.session_state.get("train-unwritable")))
    if not allowed:
        st.session_state["unwritable"] = (source, message)
        st.rerun()
    return allowed


def _keep_name() -> None:
    # Spaces are what people type; everything else that cannot name a folder is said.
    st.session_state["kept-name"] = "-".join(st.session_state["name"].split())


def _show_command(config: Config, *, unwritable: bool) -> None:
    out = skill_choice.short(runs_root() / st.session_state["name"])
    line = queue.command_line(config, out, st.session_state["preset"])
    asked_twice = unwritable and st.session_state.get("train-unwritable")
    st.code(f"{line} {FLAG}" if asked_twice else line, language="bash", wrap_lines=True)
    st.code(json.dumps(config_to_dict(config), indent=2), language="json", height=320)


def _n_layers(base_path: str) -> int | None:
    """Blocks of a base, from its folder's config; None where that needs loading it."""
    known = known_bases().get(base_path)
    folder = known.shipped_folder if known is not None else Path(base_path)
    if folder is None:
        return None
    try:
        tree = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(tree, dict):
        return None
    names = ("num_hidden_layers", "n_layer", "num_layers")
    counts = [tree.get(name) for name in names if isinstance(tree.get(name), int)]
    return counts[0] if counts else None


def _choose_layers() -> None:
    n, layers = _n_layers(str(settings.current("base.path"))), settings.current("adapter.layers")
    known = n is not None and isinstance(layers, list) and all(x in range(n) for x in layers)
    if n is None or not known:
        settings.draw("adapter.layers")
        return
    st.session_state["layers"] = layers
    st.multiselect(
        "edited layers",
        range(n),
        key="layers",
        on_change=_keep_layers,
        help=settings.setting("adapter.layers").help + f" The base has {n}.\n\n`adapter.layers`",
    )


def _keep_layers() -> None:
    settings.change("adapter.layers", sorted(st.session_state["layers"]))


def _skill_set(config: Config) -> SkillSet:
    """The rows of the config, with a line about them."""
    skill_set = skill_choice.skill_set_of(config)
    _show_rows(skill_set.names, skill_set.rows)
    return skill_set


def _show_rows(names: tuple[str, ...], rows: tuple[Any, ...]) -> None:
    n = sum(row.split == "train" for row in rows)
    with st.expander(
        f"{len(names)} skills, {n} training prompts: {plain(', '.join(names))}",
        icon=":material/list:",
    ):
        sample = rows[:: max(1, len(rows) // 30)][:30]
        table = [("+".join(r.skills), r.split, r.prompt, r.response) for r in sample]
        columns = ["skill", "split", "prompt", "response"]
        st.dataframe(pd.DataFrame(table, columns=columns), hide_index=True, height=260)
        st.page_link("pages/Skills.py", label="Check and edit them", icon=":material/fact_check:")


def duplicate(config: Config) -> None:
    """Callback: the settings become those of a run, to be changed and started again."""
    settings.take_over(config)
    st.session_state["own-data"] = False
    forget("name")
    st.toast("The settings below are now those of this run.", icon=":material/content_copy:")
