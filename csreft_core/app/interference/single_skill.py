"""Panel of the Interference page that trains on one skill at a time, when asked to."""

from contextlib import suppress
from pathlib import Path

import streamlit as st

from csreft_core.analysis import training
from csreft_core.analysis.interference import sentences
from csreft_core.app.figures.figure import Figure
from csreft_core.app.figures.source import of_run, short_path
from csreft_core.app.interference.panels import choose_unit, control_of
from csreft_core.app.page import cached, library, starting
from csreft_core.app.page.later import Later
from csreft_core.app.page.markup import plain
from csreft_core.app.page.widgets import duration
from csreft_core.charts.interference import figures as charts
from csreft_core.errors import StorageError
from csreft_core.runs import queue
from csreft_core.runs.all_runs import Run, run_name, runs_root
from csreft_core.runs.single_skill import (
    find_only_runs,
    only_config,
    only_name,
    only_rows,
)

tables = Later("csreft_core.analysis.interference.tables")

_EVERY_S = 2.0

_SINGLE_SKILL = Figure(
    "singleskill",
    tables.single_skill_table,
    charts.single_skill_matrix,
    sentences.sentence_single_skill,
)


def show_single_skill(run: Run) -> None:
    """The buttons that train on one skill each, how they go, and what they show."""
    st.markdown(
        "`I_train[i, j]`: train on skill i alone, measure skill j before and after. Each training "
        "is a run like any other, with the same settings and only that skill's training rows. "
        "Nothing starts before you press a button."
    )
    control = control_of(run)
    own_runs = _single_skill_runs(run)
    control_runs = {} if control is None else _single_skill_runs(control)
    with st.container(horizontal=True):
        _offer(run, own_runs, "this run's settings", "i-train")
        if control is not None:
            _offer(control, control_runs, f"the control {control.name}", "i-train-control")
    runs = [*own_runs.values(), *control_runs.values()]
    if not runs:
        return
    active = any(queue.standing(each).state in library.ACTIVE for each in runs)
    paths = tuple(str(each.path) for each in runs)
    st.fragment(_show_states, run_every=_EVERY_S if active else None)(paths, active)
    done = [each for each in runs if each.status().state == "finished"]
    if done:
        _show_matrix(run, done)


def _single_skill_runs(run: Run) -> dict[str, Run]:
    """The runs that learn one skill with the settings of this one, in the order of the skills."""
    names = cached.skill_names(run)
    config = only_config(run.config())
    return find_only_runs(config, names, run.name, runs_root(), cached.skill_set_of)


def _offer(run: Run, existing: dict[str, Run], label: str, key: str) -> None:
    """A button with its cost, for the skills that have no such run yet."""
    missing = [skill for skill in cached.skill_names(run) if skill not in existing]
    if not missing:
        return
    n = len(missing)
    if st.button(
        f"Train {n} run{'s' if n > 1 else ''} with {plain(label)}",
        key=key,
        icon=":material/model_training:",
        help=f"One for each of {plain(', '.join(missing))}. They "
        "wait for each other, and go on when you close this page.",
    ):
        config, skill_set = only_config(run.config()), cached.skill_set_of(run)
        # Made before the first is started: a skill that cannot be trained on starts nothing.
        starting.check_room(len(missing))
        parts = [(skill, only_rows(skill_set, skill)) for skill in missing]
        for skill, rows in parts:
            name = run_name(only_name(run.name, skill), runs_root())
            starting.submit(config, rows, name)
        st.rerun()
    st.caption(plain(_cost(run, n)))


def _cost(run: Run, n: int) -> str:
    many, steps = "s" if n > 1 else "", run.config().train.steps
    spent = training.step_table(cached.metrics_of(run))["elapsed_s"].dropna()
    took = ""
    if len(spent):
        took = f"; {run.name} took {duration(float(spent.iloc[-1]))} where it was trained"
    return f"{n} training{many} of {steps} steps, one after the other{took}."


def _show_states(paths: tuple[str, ...], was_active: bool) -> None:
    """How each run goes; the whole page is drawn anew when the last one has ended."""
    with suppress(StorageError):  # the page has said it
        queue.mark_interrupted(runs_root())
    runs = [Run(Path(path)) for path in paths]
    states = [queue.standing(run) for run in runs]
    if was_active and not any(status.state in library.ACTIVE for status in states):
        st.rerun()
    for run, status in zip(runs, states, strict=True):
        if status.state == "finished":
            continue
        with st.container(horizontal=True, vertical_alignment="center"):
            share = min(1.0, status.step / status.total_steps)
            place = queue.queue_position(run)
            waits = f", place {place} in the queue" if place else ""
            why = f": {status.message}" if status.message else ""
            st.progress(share, text=plain(f"{run.name}: {status.state}{waits}{why}"))
            st.page_link(
                "pages/Train.py",
                label="Watch",
                icon=":material/visibility:",
                query_params={"run": library.run_id(run)},
            )


def _show_matrix(run: Run, done: list[Run]) -> None:
    relative = choose_unit(
        "i-train-unit", "Relative divides by the skill's loss before the training."
    )
    _SINGLE_SKILL.show(
        of_run(run),
        options={"names": tuple(cached.skill_names(run)), "relative": relative},
        others=tuple(short_path(each.path) for each in done),
    )
