"""Pages in Streamlit's own test harness, on run folders that are made in a moment."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest, local_script_runner

from csreft_core.analysis.states import rows as state_rows
from csreft_core.analysis.states import tables as state_tables
from csreft_core.app.gates import rows as router_rows
from csreft_core.base.load import load_base
from csreft_core.config import PLAIN_TEMPLATE, BaseConfig, Config, Provenance, preset
from csreft_core.reft.adapter import build_adapter, save_adapter
from csreft_core.runs import all_runs as runs_module
from csreft_core.runs.all_runs import Run, create_run
from csreft_core.skills.skill_set import SkillSet, read_skills
from tests.page_runs import SKILLS, assert_no_bug, records
from tests.repository import ROOT


@pytest.fixture(scope="session", autouse=True)
def _the_harness_works_less() -> Iterator[None]:
    """It reads the metadata of all packages at every run of a page, and looks 1,000 times a second
    whether the run has ended, which takes the interpreter's lock from it."""
    once = cache(manifest_scanner.scan_component_manifests)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(manifest_scanner, "scan_component_manifests", once)
        patched.setattr(local_script_runner, "require_widgets_deltas", _wait)
        yield


def _wait(runner: local_script_runner.LocalScriptRunner, timeout: float) -> None:
    page = runner._script_thread
    assert page is not None
    page.join(timeout)
    if page.is_alive():
        runner.request_stop()
        raise TimeoutError(f"the page has run for {timeout} s")


@pytest.fixture(autouse=True)
def _few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures from few rows: what is true of many is tested beside the tables."""
    for figure in router_rows.PER_SKILL:
        monkeypatch.setitem(router_rows.PER_SKILL, figure, 3)
    monkeypatch.setattr(state_rows, "MOST_PROMPTS", 24)
    monkeypatch.setattr(state_tables, "MOST_STEPS", 3)


@pytest.fixture(scope="session")
def fingerprint() -> str:
    """Of the shipped base."""
    return load_base(BaseConfig()).fingerprint


@pytest.fixture(scope="session")
def few_rows() -> SkillSet:
    """The shipped skill set, cut to ten rows of each skill in each split."""
    whole = read_skills("four")
    counts: Counter[tuple] = Counter()
    rows = []
    for row in whole.rows:
        counts[row.skills, row.split] += 1
        if counts[row.skills, row.split] <= 10:
            rows.append(row)
    return SkillSet(tuple(rows), whole.names)


@pytest.fixture
def make_run(tmp_runs: Path, fingerprint: str, few_rows: SkillSet) -> Callable[..., Run]:
    """Makes run folders as the trainer leaves them, with a fresh adapter, not a trained one."""

    def make(
        name: str = "mine",
        *,
        state: str = "finished",
        config: Config | None = None,
        root: Path | None = None,
        base: str = fingerprint,
        message: str = "",
        with_adapter: bool = True,
    ) -> Run:
        config = config or preset("recommended")
        provenance = Provenance(base_fingerprint=base, template=PLAIN_TEMPLATE, versions={})
        short = replace(config.train, steps=4)
        config = replace(config, train=short, provenance=provenance)
        run = create_run((root or tmp_runs) / name, config, few_rows)
        for record in records():
            run.append_metric(record)
        if with_adapter:
            adapter = build_adapter(
                config, d_model=128, n_layers=6, skills=SKILLS, base_fingerprint=base
            )
            save_adapter(adapter, run.adapter_path)
        step = 4 if state == "finished" else 2
        run.write_status(replace(run.status(), state=state, step=step, message=message))
        return run

    return make


@pytest.fixture
def no_examples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As if nothing was shipped."""
    monkeypatch.setattr(runs_module, "SHIPPED_RUNS", tmp_path / "none")


@pytest.fixture
def open_app() -> Callable[..., AppTest]:
    """Opens a page, entering through the app's first page as a browser does.

    What pages have computed stays from test to test, as it does for visitors: it is kept by the
    path of a run and the time of its files.

    `folded` are panels to open as well, by their key.
    """

    def start(
        page: str = "app.py", *, folded: Sequence[str] = (), **query: str | list[str]
    ) -> AppTest:
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
        for key in folded:
            app.session_state[key] = True
        for name, value in query.items():
            app.query_params[name] = value
        if page != "app.py":
            app.switch_page(page)
        app.run()
        assert_no_bug(app)
        return app

    return start
