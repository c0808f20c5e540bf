"""Panels of the Runs page: the table, two runs side by side, delete with undo, download."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from csreft_core.analysis import training as tables
from csreft_core.app.page import cached, library
from csreft_core.app.page.choices import choose
from csreft_core.app.page.markup import plain, verbatim
from csreft_core.app.page.shell import offer_training
from csreft_core.app.page.state import forget
from csreft_core.app.page.widgets import duration, offer_file, show_chart, show_data
from csreft_core.charts import training as charts
from csreft_core.config import Config, config_to_dict, nearest_preset
from csreft_core.errors import CsreftError
from csreft_core.runs import queue
from csreft_core.runs.all_runs import (
    Run,
    broken_runs,
    delete_run,
    export_zip,
    restore_run,
    runs_root,
)

PAGE = 50
_MOST_BROKEN = 20
_NOBODY = ""


def show_table(runs: dict[str, Run]) -> None:
    """The runs with how they stand, a page of them; broken folders with what is wrong."""
    shown = _page_of(list(runs))
    rows = []
    for identity in shown:
        try:
            rows.append(_row(identity, runs[identity]))
        except CsreftError as error:
            rows.append(
                {"run": library.label(identity), "status": "broken", "settings": str(error)}
            )
    if not any(not library.is_example(identity) for identity in runs):
        offer_training(
            "You have no runs yet. Train one.",
            icon=":material/model_training:",
        )
    if rows:
        table = pd.DataFrame(rows)
        st.dataframe(table, hide_index=True, column_config=_columns(), key="runs-table")
        show_data(table, "runs")
    broken = broken_runs(runs_root())
    for folder, message in broken[:_MOST_BROKEN]:
        st.error(f"{verbatim(folder.name)} cannot be read: {plain(message)}.")
    if len(broken) > _MOST_BROKEN:
        st.error(f"{len(broken) - _MOST_BROKEN:,} more folders cannot be read.")


def _page_of(identities: list[str]) -> list[str]:
    """The runs on the chosen page of the table; where they fit on one, there is no choice."""
    pages = [str(n) for n in range(1, 1 + math.ceil(len(identities) / PAGE))]
    if len(pages) < 2:
        return identities
    page = choose(
        "runs-page",
        "Page",
        pages,
        width=120,
        help=f"{len(identities):,} runs, the newest first, {PAGE} on a page.",
    )
    first = (int(page) - 1) * PAGE
    return identities[first : first + PAGE]


def _columns() -> dict[str, Any]:
    config = st.column_config
    return {
        "exact match": config.NumberColumn(
            "exact match",
            format="percent",
            width="small",
            help="Mean over the skills at the last evaluation, validation split.",
        ),
        "loss": config.NumberColumn(
            "loss (nats)",
            format="%.3f",
            width="small",
            help="Mean over the skills, nats per answer token.",
        ),
        "loss curve": config.LineChartColumn(
            "loss curve", help="Validation loss.", y_min=0, width="small"
        ),
        "created": config.DatetimeColumn("created", format="YYYY-MM-DD HH:mm"),
    }


def _row(identity: str, run: Run) -> dict[str, object]:
    status = queue.standing(run)
    return {
        "run": library.label(identity),
        "status": status.state,
        **_scores_of(str(run.path), cached.stamps_of(run)),
        "steps": f"{status.step} of {status.total_steps}",
        "created": pd.Timestamp(status.created, unit="s", tz="UTC"),
    }


@st.cache_data(max_entries=1024, show_spinner=False)
def _scores_of(path: str, stamps: tuple[cached.Stamp, ...]) -> dict[str, object]:  # noqa: ARG001
    """What of a row changes only with the run's files."""
    run = Run(Path(path))
    means, steps = (make(cached.metrics_of(run)) for make in (tables.mean_curve, tables.step_table))
    return {
        "exact match": means["exact_match"].iloc[-1] if len(means) else None,
        "loss": means["loss"].iloc[-1] if len(means) else None,
        "loss curve": means["loss"].tolist(),
        "time": duration(float(steps["elapsed_s"].iloc[-1])) if len(steps) else "",
        "settings": summary(run.config()),
        "skills": ", ".join(cached.skill_names(run)),
    }


def summary(config: Config) -> str:
    """The nearest preset and what differs from it."""
    name, changed = nearest_preset(config)
    return ", ".join([name, *(c for c in changed if not c.startswith("train.threads"))])


def show_comparison(run: Run, runs: dict[str, Run]) -> None:
    """The chosen run beside another one: curves, changed settings, scores."""
    st.header("Compare two runs", anchor=False, divider="gray")
    chosen = library.run_id(run)
    others = [identity for identity in runs if identity != chosen]
    other = choose(
        "with",
        f"Compare {plain(library.label(chosen))} with",
        {_NOBODY: "no other run"} | {identity: library.label(identity) for identity in others},
        help="The first run is the one that is chosen on the left.",
    )
    pair = {library.label(i): runs[i] for i in (chosen, other) if i}
    curves = [tables.mean_curve(cached.metrics_of(r)).assign(run=name) for name, r in pair.items()]
    scores = [tables.last_scores(cached.metrics_of(r)).assign(run=name) for name, r in pair.items()]
    left, right = st.columns(2, gap="large")
    with left:
        table = pd.concat(curves)[["run", "step", "loss", "exact_match"]]
        show_chart(charts.run_curves, table, name="runs-loss", sentence=_who_is_lower(table))
    with right:
        table = pd.concat(scores)[["run", "skill", "exact_match", "loss", "n"]]
        show_chart(
            charts.exact_match_bars,
            table,
            cached.skill_names(run),
            name="exact-match",
            sentence=_who_is_right(table),
        )
    _show_scores(pair)
    if other:
        _show_differences(pair)


def _who_is_lower(table: pd.DataFrame) -> str:
    ends = table.dropna(subset="loss").groupby("run", sort=False)["loss"].last()
    if ends.empty:
        return "No evaluation yet."
    if len(ends) == 1:
        return f"The last mean validation loss is {ends.iloc[0]:.3f} nats a token."
    low, high = str(ends.idxmin()), str(ends.idxmax())
    return (
        f"{low} ends lower: {ends[low]:.3f} against {ends[high]:.3f} nats a token "
        f"(one seed each; the difference is {ends[high] - ends[low]:.3f})."
    )


def _who_is_right(table: pd.DataFrame) -> str:
    means = table.groupby("run", sort=False)["exact_match"].mean()
    if means.empty:
        return "No evaluation yet."
    shares = ", ".join(f"{name} {share:.1%}" for name, share in means.items())
    return f"Right answers on the mean over the skills, validation split: {shares}."


def _show_scores(pair: dict[str, Run]) -> None:
    """One line a run: what it reached, in which time, with how many parameters."""
    rows = []
    for name, run in pair.items():
        records = cached.metrics_of(run)
        means, steps = tables.mean_curve(records), tables.step_table(records)
        size = cached.parameters_of(run) if run.adapter_path.exists() else {}
        rows.append(
            {
                "run": name,
                "exact match": means["exact_match"].iloc[-1] if len(means) else None,
                "loss": means["loss"].iloc[-1] if len(means) else None,
                "training (s)": steps["elapsed_s"].iloc[-1] if len(steps) else None,
                "parameters, subspaces": size.get("subspaces"),
                "parameters, router": size.get("router"),
            }
        )
    table = pd.DataFrame(rows)
    st.dataframe(table, hide_index=True, column_config=_columns(), key="scores")
    show_data(table, "scores")


def _show_differences(pair: dict[str, Run]) -> None:
    st.subheader("Which settings differ?", anchor=False)
    configs = {name: _flat(run.config()) for name, run in pair.items()}
    first, second = configs.values()
    keys = [key for key in {**first, **second} if first.get(key) != second.get(key)]
    if not keys:
        st.markdown("None: both runs have the same settings.")
        return
    rows = [{"setting": k, **{name: c.get(k, "") for name, c in configs.items()}} for k in keys]
    table = pd.DataFrame(rows)
    st.dataframe(table, hide_index=True, key="differences")
    show_data(table, "settings")


def _flat(config: Config) -> dict[str, str]:
    tree = config_to_dict(config)
    return {
        f"{group}.{name}": json.dumps(value)
        for group in ("base", "data", "adapter", "router", "train")
        for name, value in tree[group].items()
    }


def show_keeping(run: Run) -> None:
    """Download the chosen run, delete it, and bring deleted ones back."""
    identity = library.run_id(run)
    st.header(f"Keep or delete {plain(library.label(identity))}", anchor=False, divider="gray")
    with st.container(horizontal=True):
        offer_file(
            "Download (zip)",
            lambda: export_zip(run),
            f"{run.name}.zip",
            key="zip",
            help="Adapter, config, metrics, skills and status, in one folder.",
        )
        example = library.is_example(identity)
        if st.button(
            "Delete",
            icon=":material/delete:",
            key="delete",
            disabled=example,
            help="Shipped examples stay." if example else "Goes to the trash; undo brings it back.",
        ):
            st.session_state["deleted"] = delete_run(run)
            forget("run")
            st.rerun()


def show_undo() -> None:
    """After a deletion: what was deleted, and the way back."""
    deleted = st.session_state.get("deleted")
    if not deleted:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.info(f"Deleted: {plain(deleted.rpartition('-')[0])}", icon=":material/delete:")
        if st.button("Undo", icon=":material/undo:", key="undo"):
            restore_run(deleted, runs_root())
            st.session_state["deleted"] = None
            st.rerun()
