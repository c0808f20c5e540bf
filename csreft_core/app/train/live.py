"""The panel of one run: how it goes, its curves, and its buttons. Reads the run folder only."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from csreft_core.analysis import training as tables
from csreft_core.app.page import cached, library, starting
from csreft_core.app.page.markup import plain
from csreft_core.app.page.parts import choose_part
from csreft_core.app.page.shell import showing_errors
from csreft_core.app.page.widgets import duration, show_chart
from csreft_core.app.train.panels import duplicate
from csreft_core.charts import training as charts
from csreft_core.errors import StorageError
from csreft_core.files import check_plain
from csreft_core.runs import queue
from csreft_core.runs.all_runs import Run, Status, runs_root

_Curve = tuple[
    str, Callable[..., go.Figure], Callable[..., pd.DataFrame], Callable[..., str] | None
]

_EVERY_S = 2.0
_LOG_LINES = 40
_QUIET_S = 60.0
"""A training writes every five seconds; so long a silence is worth a word."""
_CURVES: dict[str, tuple[_Curve, _Curve]] = {
    "Loss and gates": (
        ("loss", charts.loss_curves, tables.loss_table, tables.sentence_loss),
        ("gatecurves", charts.gate_curves, tables.gate_curve_table, tables.sentence_gates),
    ),
    "Answers and entropy": (
        ("exact", charts.exact_match_bars, tables.last_scores, tables.sentence_exact_match),
        ("entropy", charts.entropy_curve, tables.step_table, tables.sentence_entropy),
    ),
    "Constraint and rates": (
        ("constraint", charts.constraint_curves, tables.step_table, tables.sentence_constraint),
        ("optimiser", charts.optimiser_curves, tables.step_table, None),
    ),
}
"""Two charts for each part: name, chart, and what makes table and sentence of the records."""
_STATES: dict[str, tuple[Any, str]] = {
    "queued": ("blue", ":material/hourglass_top:"),
    "running": ("blue", ":material/play_arrow:"),
    "finished": ("green", ":material/check:"),
    "stopped": ("orange", ":material/pause:"),
    "failed": ("red", ":material/error:"),
    "interrupted": ("orange", ":material/power_off:"),
}


def watch(run: Run) -> None:
    """Draw the run; while it waits or trains, draw it again every two seconds."""
    active = queue.standing(run).state in library.ACTIVE
    st.fragment(_panel, run_every=_EVERY_S if active else None)(str(run.path), active)


def _panel(path: str, was_active: bool) -> None:
    with suppress(StorageError):  # the page has said it
        queue.mark_interrupted(runs_root())
    with showing_errors():
        run = Run(Path(path))
        status = queue.standing(run)
        if was_active and status.state not in library.ACTIVE:
            st.rerun()
        records = cached.metrics_of(run)
        _show_state(run, status, records)
        _show_buttons(run, status)
        _show_problems(run, status, records)
        _show_scores(records)
        _show_curves(run, records, live=was_active)


def _show_state(run: Run, status: Status, records: list[dict[str, Any]]) -> None:
    colour, icon = _STATES[status.state]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(plain(run.name), anchor=False, width="content")
        st.badge(status.state, icon=icon, color=colour)
    share = min(1.0, status.step / status.total_steps)
    st.progress(share, text=plain(_phase(run, status, records)))


def _phase(run: Run, status: Status, records: list[dict[str, Any]]) -> str:
    done = f"step {status.step} of {status.total_steps}"
    if status.state == "queued":
        place = queue.queue_position(run)
        return f"waits for its turn, place {place} in the queue" if place else "waits for its turn"
    if status.state != "running":
        return f"{status.state}, {done}"
    if run.stop_requested():
        return f"is saving, then stops; {done}"
    quiet = time.time() - status.heartbeat
    if quiet > _QUIET_S:
        return f"no sign of life for {duration(quiet)}; {done}"
    if status.message:
        return f"{status.message}; {done}"
    steps = [record for record in records if record.get("kind") == "step"]
    if not steps:
        return f"first evaluation; {done}"
    left, speed = steps[-1].get("time_left_s"), steps[-1].get("tokens_per_second")
    if left is None or speed is None:
        return f"training: {done}"
    return f"training: {done}, {duration(left)} left, {speed:,.0f} answer tokens a second"


def _show_buttons(run: Run, status: Status) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        if not library.is_example(library.run_id(run)):
            _show_stop_or_resume(run, status)
        if st.button(
            "Duplicate",
            icon=":material/content_copy:",
            key="duplicate",
            help="Copies this run's settings into the form of a new run.",
            on_click=duplicate,
            args=(run.config(),),
        ):
            st.rerun()
        if run.adapter_path.exists():
            st.page_link(
                "app.py",
                label="Try it on a prompt",
                icon=":material/alt_route:",
                query_params={"run": library.run_id(run)},
            )


def _show_stop_or_resume(run: Run, status: Status) -> None:
    if status.state in library.ACTIVE and st.button(
        "Stop and save",
        icon=":material/stop:",
        key="stop",
        disabled=run.stop_requested(),
        help="Saves a checkpoint and the adapter as it is, then ends. You can resume.",
    ):
        queue.stop(run)
        st.rerun()
    if status.state in ("stopped", "failed", "interrupted") and st.button(
        "Resume",
        icon=":material/play_arrow:",
        key="resume",
        type="primary",
        help="Goes on from the last checkpoint; the result is that of an unbroken run.",
    ):
        starting.resume(run)
        st.rerun()


def _show_problems(run: Run, status: Status, records: list[dict[str, Any]]) -> None:
    if status.state == "failed":
        st.error(f"The training failed: {plain(status.message)}")
        lines = _log_end(run)
        if lines:
            with st.expander("End of its log", expanded=True, icon=":material/description:"):
                st.code(lines, language=None, height=240)
    elif status.state == "interrupted":
        st.warning(f"The training ended before it was done: {plain(status.message)}.")
    learned = run.config().router.gates == "learned"
    for alert in tables.alerts(records, learned_gates=learned):
        st.warning(f"**{plain(alert.text)}** {plain(alert.remedy)}", icon=":material/warning:")


def _log_end(run: Run) -> str:
    try:
        check_plain(run.log_path)
    except OSError:
        return ""
    with run.log_path.open("rb") as file:
        file.seek(max(0, run.log_path.stat().st_size - 20_000))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    return "\n".join(line.rpartition("\r")[2] for line in lines[-_LOG_LINES:])


def _show_scores(records: list[dict[str, Any]]) -> None:
    steps, means = tables.step_table(records), tables.mean_curve(records)
    loss = f"{means['loss'].iloc[-1]:.3f} nats" if len(means) else "-"
    right = f"{means['exact_match'].iloc[-1]:.1%}" if len(means) else "-"
    spent = duration(float(steps["elapsed_s"].iloc[-1])) if len(steps) else "-"
    speed = f"{steps['tokens_per_second'].median():,.0f} /s" if len(steps) else "-"
    with st.grid(4, min_column_width=150):
        st.metric("Validation loss", loss, help="Mean over the skills, nats per answer token.")
        st.metric("Exact match", right, help="Mean over the skills, on the validation split.")
        st.metric("Time spent", spent, help="Seconds of training, over all resumptions.")
        st.metric("Answer tokens", speed, help="Median speed: answer tokens a second.")


def _show_curves(run: Run, records: list[dict[str, Any]], *, live: bool) -> None:
    part, panel = choose_part("train-part", tuple(_CURVES))
    with panel:
        columns = st.columns(2, gap="large")
    for column, (name, draw, make, sentence) in zip(columns, _CURVES[part], strict=True):
        # A chart of steps has no skills to colour.
        names = () if make is tables.step_table else (cached.skill_names(run),)
        with column:
            show_chart(
                draw,
                make(records),
                *names,
                name=name,
                live=live,
                sentence=sentence(records) if sentence else "",
            )
