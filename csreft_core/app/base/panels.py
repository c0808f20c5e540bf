"""Panels of the Model page: a base, whether it fits, its layers, and its use for the next run."""

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import streamlit as st

from csreft_core.analysis.base import sentences as say
from csreft_core.analysis.base import tables
from csreft_core.app.base import choice as base_choice
from csreft_core.app.base import fit as base_fit
from csreft_core.app.page import settings
from csreft_core.app.page.markup import plain, verbatim
from csreft_core.app.page.state import keep, recall
from csreft_core.app.page.widgets import help_text, show_data
from csreft_core.base.shapes import Shape
from csreft_core.config import BaseConfig, Config
from csreft_core.errors import UnsupportedModelError
from csreft_core.inference.loaded_bases import LoadedBase


@dataclass(frozen=True)
class Choice:
    """A base that exists, with the settings of a run on it.

    Attributes:
        config: The settings of the next run with this base, these layers and this batch.
        shape: Of the base.
        layers: That are ticked; none is possible.
        training: Whether the memory is for a training.
    """

    config: Config
    shape: Shape
    layers: tuple[int, ...]
    training: bool


def intro() -> None:
    """The title and the question of the page."""
    st.title("Model", anchor=False)
    st.markdown("Which base do the edits go into, does it fit, and where do the edits go?")
    settings.recall_preset()
    settings.overrides()


def choose() -> Choice | None:
    """Draw the choice of the base and of the batch; None where no base is given yet.

    Raises:
        ConfigError: settings of the next run that do not fit, or a base that is not offered.
        UnsupportedModelError: no such base, or one that cannot be edited.
    """
    base = base_choice.choose()
    if base is None:
        st.info("Give a folder or a Hub id to see what it needs.", icon=":material/info:")
        return None
    with st.spinner("Counting parameters …"):
        problem = _problem(base.path, base.revision)
    if problem:
        raise UnsupportedModelError(problem)
    shape = tables.base_shape(base.path, base.revision)
    training = base_fit.choose_purpose()
    config = settings.build(base.path)
    layers = _layers(config, shape)
    adapter = replace(config.adapter, layers=layers or _middle(config, shape))
    config = base_fit.choose_batch(replace(config, base=base, adapter=adapter), shape)
    return Choice(config, shape, layers, training)


@st.cache_data(max_entries=64, ttl=30, show_spinner=False)
def _problem(path: str, revision: str | None) -> str:
    """Why a base cannot be used; empty where it can. The Hub is not asked again at every click."""
    try:
        tables.base_shape(path, revision)
    except UnsupportedModelError as error:
        return str(error)
    return ""


def _middle(config: Config, shape: Shape) -> tuple[int, ...]:
    """As many layers as the settings edit, in the middle of the base."""
    n = min(len(config.adapter.layers), shape.n_layers)
    start = (shape.n_layers - n) // 2
    return tuple(range(start, start + n))


def _layers(config: Config, shape: Shape) -> tuple[int, ...]:
    """The ticked layers: the URL's, else the session's, else the settings', if the base has them.

    A text such as `2-5` in the URL; empty is none.
    """
    fitting = all(layer < shape.n_layers for layer in config.adapter.layers)
    default = config.adapter.layers if fitting else _middle(config, shape)
    text = recall("edit", _text(default))
    try:
        layers = tuple(sorted({int(part) for part in text.split("-")})) if text else ()
    except ValueError:
        layers = default
    if any(layer >= shape.n_layers for layer in layers):
        layers = _middle(config, shape)
    keep("edit", _text(layers), _text(default))
    return layers


def _text(layers: tuple[int, ...]) -> str:
    return "-".join(map(str, layers))


def show_layers(choice: Choice, held: LoadedBase | None) -> None:
    """The table of layers, in which the edited ones are ticked."""
    st.header("Where will the edits go?", anchor=False, divider="gray", help=help_text("layers"))
    table = _plan(choice.config.base) if held is None else tables.layers_table(held.engine.base)
    _say_missing(choice)
    st.session_state["base-layers"] = {
        "selection": {"rows": list(choice.layers), "columns": [], "cells": []}
    }
    st.dataframe(
        table,
        hide_index=True,
        key="base-layers",
        selection_mode="multi-row",
        on_select=_keep_ticks,
        column_config=_columns(),
        column_order=_column_names(table, held),
        height=min(430, 38 + 35 * len(table)),
        alt=f"Table of the {len(table)} layers of the base; the edited ones are ticked.",
    )
    st.markdown(plain(say.sentence_layers(table, list(choice.layers))))
    middle = _middle(choice.config, choice.shape)
    with st.container(horizontal=True):
        if choice.layers != middle:
            st.button(
                f"Take the middle: {', '.join(map(str, middle))}",
                key="middle",
                on_click=keep,
                args=("edit", _text(middle)),
                icon=":material/vertical_align_center:",
            )
        show_data(table, "layers")


@st.cache_data(max_entries=16, ttl=300, show_spinner=False)
def _plan(base: BaseConfig) -> pd.DataFrame:
    return tables.planned_layers_table(base)


def _say_missing(choice: Choice) -> None:
    """The settings of the next run may edit layers that this base does not have."""
    wanted = settings.build().adapter.layers
    missing = [str(layer) for layer in wanted if layer >= choice.shape.n_layers]
    if missing:
        st.warning(
            f"The settings of the next run edit layer{'s' * (len(missing) > 1)} "
            f"{', '.join(missing)}, but this base has {choice.shape.n_layers} (0 to "
            f"{choice.shape.n_layers - 1}). Ticked instead: the middle.",
            icon=":material/warning:",
        )


def _keep_ticks() -> None:
    rows = st.session_state["base-layers"]["selection"]["rows"]
    keep("edit", _text(tuple(sorted(rows))))


def _column_names(table: pd.DataFrame, held: LoadedBase | None) -> list[str]:
    return [str(name) for name in table if held is not None or name not in ("bytes", "device")]


def _columns() -> dict[str, Any]:
    config = st.column_config
    return {
        "layer": config.NumberColumn("layer", width="small", help=help_text("column_layer")),
        "block": config.TextColumn("type"),
        "attention": config.TextColumn("attends to", help=help_text("column_attention")),
        "d_model": config.NumberColumn("hidden size", help=help_text("column_width")),
        "parameters": config.NumberColumn("parameters", format="localized"),
        "bytes": config.NumberColumn("bytes", format="localized", help=help_text("column_bytes")),
        "device": config.TextColumn("device", help=help_text("column_device")),
    }


def show_use(choice: Choice) -> None:
    """The button that makes the base and its layers those of the next run."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Use this base for the next run",
            type="primary",
            icon=":material/check:",
            key="use",
            on_click=_use,
            args=(choice,),
            disabled=not choice.layers,
            help=help_text("use"),
        )
        st.page_link("pages/Train.py", label="To the Train page", icon=":material/model_training:")
    base, precision, layers = (
        settings.current(path) for path in ("base.path", "base.precision", "adapter.layers")
    )
    st.caption(
        f"The next run uses {verbatim(f'base.path={base}')}, "
        f"{verbatim(f'base.precision={precision}')}, {verbatim(f'adapter.layers={layers}')}."
    )


def _use(choice: Choice) -> None:
    base = choice.config.base
    for name in ("path", "revision", "precision", "compute", "device"):
        settings.change(f"base.{name}", getattr(base, name))
    settings.change("adapter.layers", list(choice.layers))
    st.toast("The next run uses this base and these layers.", icon=":material/check:")
