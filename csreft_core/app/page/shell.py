"""What every page begins and ends with: settings, navigation, the chosen run, errors, versions."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version

import streamlit as st

from csreft_core.app.page import library
from csreft_core.app.page.markup import plain
from csreft_core.app.page.state import forget, keep, keep_widget, recall
from csreft_core.app.page.turns import TURNS
from csreft_core.config import ASSETS
from csreft_core.errors import CsreftError
from csreft_core.reft.base_record import old_record
from csreft_core.runs import queue
from csreft_core.runs.all_runs import Run, runs_root

_PAGES = (
    ("Learn", "app.py", "Start", ":material/home:", "What the gates do to one sentence"),
    ("Build", "pages/Model.py", "Model", ":material/memory:", "The base, and whether it fits"),
    ("", "pages/Skills.py", "Skills", ":material/fact_check:", "What the next run learns from"),
    ("", "pages/Train.py", "Train", ":material/model_training:", "Teach a model your skills"),
    ("Inspect", "pages/Router.py", "Router", ":material/alt_route:", "What the router decides"),
    (
        "",
        "pages/Geometry.py",
        "Geometry",
        ":material/square_foot:",
        "What subspaces share",
    ),
    ("", "pages/States.py", "States", ":material/scatter_plot:", "What an edit moves"),
    ("", "pages/Interference.py", "Interference", ":material/grid_on:", "Who helps or hurts whom"),
    ("", "pages/Compare.py", "Compare", ":material/compare:", "Answers side by side"),
    ("Judge", "pages/Methods.py", "Methods", ":material/balance:", "All methods on the same work"),
    ("", "pages/Claims.py", "Claims", ":material/gavel:", "What the papers claim, and what holds"),
    ("Keep", "pages/Runs.py", "Runs", ":material/folder_open:", "All runs, and what differs"),
)


@contextmanager
def showing_errors() -> Iterator[None]:
    """Show the user's mistakes as a message that says what to do; everything else is a bug."""
    try:
        yield
    except CsreftError as error:
        text = str(error)
        st.error(plain(text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")))


def offer_training(text: str, icon: str = ":material/info:") -> None:
    """Say what is missing without a run, with the way to train one."""
    st.info(f"{text} The Train page says how long it takes.", icon=icon)
    st.page_link("pages/Train.py", label="Train a run", icon=":material/model_training:")


@contextmanager
def start_page(title: str, heading: str = "") -> Iterator[Run | None]:
    """Set the page up and give the chosen run; None where there is none at all.

    A page imports its panels inside: what they stand on takes a second, and the heading is there
    before it.

    Args:
        title: Of the page, as in the navigation.
        heading: On top of the page; empty leaves it to the page.
    """
    # A local file: the browser would fetch a Material icon for the tab from the network.
    icon = str(ASSETS / "icon.svg")
    st.set_page_config(page_title=f"{title} · CS-ReFT Explorer", page_icon=icon, layout="wide")
    if heading:
        st.title(heading, anchor=False)
    with ExitStack() as stack:
        with st.spinner("Many pages are being opened. Yours is next in a few seconds …"):
            stack.enter_context(TURNS.turn())
        mark_interrupted()
        run = _chosen_run(library.all_runs())
        with showing_errors():
            yield run
        _footer(run)


def mark_interrupted() -> None:
    """Tell runs whose process is gone from those that train; where it cannot be kept, say so."""
    with showing_errors():
        queue.mark_interrupted(runs_root())


def _chosen_run(runs: dict[str, Run]) -> Run | None:
    wanted = st.query_params.get("run")
    problem = library.why_not(wanted, runs_root()) if wanted and wanted not in runs else None
    default = next((i for i in runs if library.is_example(i)), next(iter(runs), ""))
    chosen = recall("run", "", runs) or default
    if chosen:
        # Always in the address: the default changes when a run is added.
        keep("run", chosen)
        st.session_state["run"] = chosen
    with st.sidebar:
        st.markdown("### :material/alt_route: CS-ReFT Explorer")
        _navigation(chosen)
        if runs:
            st.selectbox(
                "Run",
                list(runs),
                format_func=library.label,
                key="run",
                on_change=keep_widget,
                args=("run",),
                help="The run that the pages show. It stays when you change the page, and a copy "
                "of the address shows the same.",
            )
        else:
            forget("run")
    if problem:
        st.error(plain(problem))
    return runs.get(chosen)


def _navigation(chosen: str) -> None:
    for group, path, label, icon, text in _PAGES:
        if group:
            st.caption(group)
        st.page_link(path, label=label, icon=icon, help=text, query_params=run_link(chosen))


def run_link(identity: str) -> dict[str, str]:
    """The part of a link that carries the chosen run to another page."""
    return {"run": identity} if identity else {}


def _say_old_record(run: Run) -> None:
    with showing_errors():
        config = run.config()
        recorded = config.provenance.base_fingerprint if config.provenance else ""
        if note := old_record(recorded, config.base.path):
            st.caption(f"Note: {plain(note)}.")


def _footer(run: Run | None) -> None:
    parts = [f"{name} {version(name)}" for name in ("torch", "transformers", "streamlit")]
    if run is not None:
        parts.insert(0, f"run {plain(run.name)}")
        _say_old_record(run)
    st.caption(" · ".join(["CS-ReFT Explorer", *parts]))
