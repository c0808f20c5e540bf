"""What a shipped run shows when its pages are opened, and how it comes to be kept beside the run.

Nothing is listed but the pages, their parts and the examples of the prompt box: the pages
themselves say which tables and answers they need.
"""

from collections.abc import Iterator, Sequence
from unittest.mock import patch

import streamlit as st
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from csreft_core.app import geometry
from csreft_core.app.gates import panels as router
from csreft_core.app.gates import rows as router_rows
from csreft_core.app.interference import panels as interference
from csreft_core.app.page import cached, kept, library
from csreft_core.app.page.prompts import examples
from csreft_core.app.states import panels as states
from csreft_core.config import PROJECT
from csreft_core.errors import RunError
from csreft_core.runs.all_runs import Run, example_runs

Query = dict[str, str]

START, ROUTER, COMPARE = "app.py", "pages/Router.py", "pages/Compare.py"
STATES, INTERFERENCE, GEOMETRY = "pages/States.py", "pages/Interference.py", "pages/Geometry.py"
FOLDED = ("mixing-panel", "i-regret", "i-overlap")
"""Panels that are drawn when they are opened, by their keys."""
_ASKING: tuple[tuple[str, Query], ...] = (
    (START, {}),
    (ROUTER, {}),
    *((STATES, {"states-part": part}) for part in (states.PICTURE, states.AXES, states.SIZE)),
    (INTERFERENCE, {"i-part": interference.OWN_PROMPT}),
    (COMPARE, {}),
)
_OTHERS: tuple[tuple[str, Query], ...] = (
    *((ROUTER, {"router-part": router.HELD_OUT, "look": look}) for look in router_rows.LOOKS),
    *((STATES, {"states-part": part}) for part in (states.TRAINING, states.SKILL)),
    *(
        (INTERFERENCE, {"i-part": part})
        for part in (interference.SETTINGS, interference.PAIRS, interference.ONE_SKILL)
    ),
    *((GEOMETRY, {"geometry-part": part}) for part in geometry.PARTS),
)


def first_views(run: Run) -> Iterator[tuple[str, Query]]:
    """Each page with what its address says beside the run: parts, and the examples to ask."""
    for page, query in _ASKING:
        for row in examples(run):
            yield page, query | {"prompt": row.prompt}
    yield from _OTHERS


def open_view(run: Run, page: str, query: Query) -> AppTest:
    """A page as a browser opens it, with its folded panels open."""
    app = AppTest.from_file(str(PROJECT / START), default_timeout=600)
    for key in FOLDED:
        app.session_state[key] = True
    for name, value in (query | {"run": library.run_id(run)}).items():
        app.query_params[name] = value
    if page != START:
        app.switch_page(page)
    return app.run()


def keep_first_views(names: Sequence[str] = ()) -> Iterator[str]:
    """Open every page of the shipped runs and keep beside them what was computed.

    Args:
        names: Of the runs; empty means all.

    Yields:
        What was written, in words.

    Raises:
        RunError: an unknown name.
        CsreftError: a base that cannot be loaded, or an adapter that is not of it.
    """
    runs = {run.name: run for run in example_runs()}
    if unknown := set(names) - set(runs):
        raise RunError(f"no shipped run {min(unknown)!r}; choose from {', '.join(runs)}")
    # The harness reads the metadata of all packages at every run of a page: half of its time.
    with patch.object(manifest_scanner, "scan_component_manifests", list):
        for name in names or runs:
            views = _views_of(runs[name])
            path = kept.write(runs[name], views)
            yield f"{path}: {len(views)} views, {path.stat().st_size / 1000:.0f} kB"


def _views_of(run: Run) -> kept.Views:
    st.cache_data.clear()
    with kept.noting() as noted:
        cached.subject_of(run)  # a base that is not there must not be kept as an error
        for page, query in first_views(run):
            for bug in open_view(run, page, query).exception:
                raise RuntimeError(f"{page} of {run.name} with {query}: {bug.message}")
        return noted[run.path]
