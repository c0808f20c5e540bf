"""The settings of a new run: a preset and what differs from it, kept in the URL and the session.

Widgets show this state and write to it; a setting that does not fit is kept, so that the message
can be read and the setting changed.
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import streamlit as st
from annotated_types import Ge, Gt

from csreft_core.app.page.base_folders import check_allowed
from csreft_core.app.page.ceilings import MOST_CHARACTERS, MOST_SETTINGS, SETTINGS, check_setting
from csreft_core.app.page.state import keep, recall
from csreft_core.config import (
    GROUPS,
    PRESETS,
    Config,
    config_to_dict,
    configured,
    nearest_preset,
    preset,
    read_value,
    value_text,
)

_KEPT = "kept-settings"
_PARAM = "set"
_BASE = "base.path"
_MOST_BRACKETS = 10
_MOST_TYPED = 400
_LARGEST = 1e9


@dataclass(frozen=True)
class Setting:
    """One field of the config, as its widget needs it."""

    path: str
    help: str
    annotation: Any
    least: int | float | None
    most: int | float | None

    @property
    def label(self) -> str:
        """The field's name."""
        return self.path.partition(".")[2].replace("_", " ")


def setting(path: str) -> Setting:
    """The field of a path such as `adapter.rank`."""
    group, _, name = path.partition(".")
    field = GROUPS[group].__pydantic_fields__[name]  # type: ignore[attr-defined]
    bounds = [m.ge if isinstance(m, Ge) else m.gt for m in field.metadata if isinstance(m, Ge | Gt)]
    least = next((bound for bound in bounds if isinstance(bound, int | float)), None)
    return Setting(path, field.description or "", field.annotation, least, SETTINGS.get(path))


def all_paths() -> list[str]:
    """The paths of all settings, in the config's order."""
    return [f"{g}.{f.name}" for g, cls in GROUPS.items() for f in dataclasses.fields(cls)]


def recall_preset() -> str:
    """The preset that the settings start from."""
    return recall("preset", "recommended", PRESETS)


def overrides() -> dict[str, Any]:
    """What differs from the preset, by path; the URL's, else the session's."""
    texts = st.query_params.get_all(_PARAM)
    if texts:
        pairs = (text.partition("=") for text in texts[:MOST_SETTINGS])
        changed = {p: _read(p, text) for p, _, text in pairs if p in all_paths()}
    else:
        changed = st.session_state.get(_KEPT, {})
    _write(changed)
    return changed


def _read(path: str, text: str) -> Any:
    """As `read_value`; what is too long or too deep to be a setting stays a text."""
    if len(text) > MOST_CHARACTERS or text.count("[") + text.count("{") > _MOST_BRACKETS:
        return text
    return read_value(path, text)


def _write(changed: dict[str, Any]) -> None:
    st.session_state[_KEPT] = changed
    texts = [f"{path}={value_text(path, value)}" for path, value in changed.items()]
    if texts != st.query_params.get_all(_PARAM):
        if texts:
            st.query_params[_PARAM] = texts
        elif _PARAM in st.query_params:
            del st.query_params[_PARAM]


def current(path: str) -> Any:
    """The value of a setting now, fitting or not."""
    kept = st.session_state.get(_KEPT, {})
    return kept[path] if path in kept else _of_preset(path)


def _of_preset(path: str) -> Any:
    """The preset's value of a setting, on the base that is chosen."""
    group, _, field = path.partition(".")
    name = st.session_state["preset"]
    start = preset(name) if path == _BASE else preset(name, str(current(_BASE)))
    return config_to_dict(start)[group][field]


def change(path: str, value: Any) -> None:
    """Set one value; the preset's own value takes the change back."""
    changed = dict(st.session_state.get(_KEPT, {}))
    if value == _of_preset(path):
        changed.pop(path, None)
    else:
        changed[path] = value
    _write(changed)


def assign(assignment: str) -> None:
    """Set one value given as `path=value`; the value is read as JSON where it is JSON."""
    path, _, text = assignment.partition("=")
    change(path, read_value(path, text))


def take_preset() -> None:
    """Callback of the preset's widget: its values replace all changes."""
    keep("preset", st.session_state["preset"], "recommended")
    _write({})


def take_over(config: Config) -> None:
    """Make the settings those of a config, on the preset that needs the fewest changes."""
    threads = dataclasses.replace(config.train, threads=None)
    plain = dataclasses.replace(config, train=threads, provenance=None)
    name, changed = nearest_preset(plain)
    pairs = (text.partition("=") for text in changed)
    keep("preset", name, "recommended")
    _write({path: read_value(path, text) for path, _, text in pairs})


def build(base: str | None = None) -> Config:
    """The config of the settings; raises `ConfigError` where they do not fit.

    Args:
        base: Another `base.path` than theirs, with its own recipe; None is theirs.
    """
    changed = dict(st.session_state.get(_KEPT, {}))
    if base is not None:
        changed[_BASE] = base
    check_allowed(str(changed.get(_BASE, current(_BASE))))
    for path, value in changed.items():
        check_setting(path, value)
    assignments = [f"{path}={json.dumps(value)}" for path, value in changed.items()]
    return configured(st.session_state["preset"], assignments)


def draw(path: str, label: str | None = None) -> None:
    """Draw the widget of a setting; the field's description is its tooltip."""
    field = setting(path)
    widget = _widget(field.annotation)
    widget(field, label or field.label, current(path))


def _change_from_widget(path: str, convert: Callable[[Any], Any]) -> None:
    change(path, convert(st.session_state[f"set-{path}"]))


def _options(field: Setting, value: Any, convert: Callable[[Any], Any]) -> dict[str, Any]:
    key = f"set-{field.path}"
    st.session_state[key] = value
    return {
        "key": key,
        "help": f"{field.help}\n\n`{field.path}`",
        "on_change": _change_from_widget,
        "args": (field.path, convert),
    }


def _widget(annotation: Any) -> Callable[[Setting, str, Any], None]:
    if get_origin(annotation) is Literal:
        return _choice
    return {bool: _switch, int: _whole, float: _decimal}.get(annotation, _text)


def _choice(field: Setting, label: str, value: Any) -> None:
    choices = get_args(field.annotation)
    value = value if value in choices else choices[0]
    st.selectbox(label, choices, **_options(field, value, str))


def _switch(field: Setting, label: str, value: Any) -> None:
    st.toggle(label, **_options(field, bool(value), bool))


def _whole(field: Setting, label: str, value: Any) -> None:
    number = value if isinstance(value, int) and not isinstance(value, bool) else None
    least = None if field.least is None else int(field.least)
    most = None if field.most is None else int(field.most)
    st.number_input(
        label,
        min_value=least,
        max_value=most,
        step=1,
        **_options(field, _within(number, least, most), _same),
    )


def _decimal(field: Setting, label: str, value: Any) -> None:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    number = _within(number, -_LARGEST, _LARGEST if field.most is None else field.most)
    shown = None if number is None else float(number)
    step = 0.001 if field.path.endswith("lr") else 0.1
    st.number_input(label, step=step, format="%g", **_options(field, shown, _same))


def _within(number: Any, least: int | float | None, most: int | float | None) -> Any:
    """The number, or None where the widget could not show it; the message says what is wrong."""
    inside = (
        number is not None
        and (least is None or number >= least)
        and (most is None or number <= most)
    )
    return number if inside else None


def _text(field: Setting, label: str, value: Any) -> None:
    shown = "" if value is None else value_text(field.path, value)[:_MOST_TYPED]
    optional = NoneType in get_args(field.annotation)

    def convert(text: str) -> Any:
        return None if optional and not text.strip() else _read(field.path, text.strip())

    st.text_input(label, max_chars=_MOST_TYPED, **_options(field, shown, convert))


def _same(value: Any) -> Any:
    return value
