"""The app in a real Chromium: what a newcomer does, and that no text makes it fetch anything.

One file, so that its tests share the server and the browser.
"""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import psutil
from playwright.sync_api import expect

from csreft_core.runs.all_runs import example_runs
from csreft_core.runs.run import Run
from tests import hostile
from tests.browser.steps import answers, progress, wait_for_state, wait_until_drawn
from tests.served_app import START_S, handshake

# Streamlit looks for its server below a page's own address first and finds it one level up.
_PROBE = re.compile(r"404 \(Not Found\) \S+/_stcore/(health|host-config)$")
_FOREIGN_LINKS = """() => [...document.links].map(link => link.href).filter(
    href => !href.startsWith(location.origin + '/')
)"""
PAGES = ("", "Train", "Runs")


def _own(faults):
    return [fault for fault in faults if not _PROBE.search(fault)]


def test_start_shows_gates_and_both_answers(address, open_page):
    page, faults = open_page(address)
    page.get_by_text("With the adapter").wait_for()
    page.get_by_text("Without the adapter").wait_for()
    page.locator(".js-plotly-plot .bars path").first.wait_for(state="attached")
    first = answers(page)
    assert len(first) == 2
    box = page.get_by_role("textbox", name="Your prompt")
    box.fill("What is the plural of dog?")
    box.press("Enter")
    page.wait_for_function("old => !document.body.innerText.includes(old)", arg=first[1])
    assert "dogs" in answers(page)[1]
    assert "plural+of+dog" in page.url
    assert _own(faults) == []


@contextmanager
def held_after_a_step(run: Path) -> Iterator[None]:
    """Inside the `with` the run's process stands still, some steps after its first."""
    deadline = time.monotonic() + START_S
    while not (run / "status.json").exists() or not (status := Run(run).status()).step:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process = psutil.Process(status.pid)
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def test_train_reload_stop_resume_finish(address, open_page, runs):
    steps = 60  # some 2 s: the training is held while the page is loaded anew and asks to stop
    asked = {"steps": steps, "batch_size": 4, "eval_every": steps}
    settings = "&".join(f"set=train.{name}={value}" for name, value in asked.items())
    page, faults = open_page(f"{address}/Train?{settings}")
    page.get_by_role("button", name="Start training").click()
    wait_for_state(page, "running")
    assert "run=recommended" in page.url
    run = runs / "recommended"
    with held_after_a_step(run):
        page.reload()
        wait_for_state(page, "running")  # still attached: the run is in the address
        page.wait_for_function("/training: step [1-9]/.test(document.body.innerText)")
        page.get_by_role("button", name="Stop and save").click()
        page.get_by_text("is saving, then stops").wait_for()
    wait_for_state(page, "stopped")
    stopped_at = json.loads((run / "status.json").read_text())["step"]
    assert 0 < stopped_at < steps
    assert (run / "adapter.safetensors").is_file()

    page.get_by_role("button", name="Resume").click()
    wait_for_state(page, "finished")
    assert progress(page) == f"finished, step {steps} of {steps}"
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = [record["step"] for record in records if record["kind"] == "step"]
    assert logged == sorted(set(logged))
    assert logged[-1] == steps
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    wait_until_drawn(page)
    page.get_by_role("tab", name="Constraint and rates").click()
    page.get_by_text("Do the subspaces stay orthonormal?").wait_for()
    assert "train-part=Constraint" in page.url

    onward = page.get_by_role("link", name="Try it on a prompt")
    expect(onward).to_have_count(1)  # while the page is drawn anew, the old link stands beside it
    onward.click()
    page.get_by_text("With the adapter").wait_for()
    assert len(answers(page)) == 2
    assert _own(faults) == []


def test_foreign_hosts_and_pages_get_no_answer(address):
    port = urlsplit(address).port
    for own in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert handshake(address, own) == 101
        assert handshake(address, own, f"http://{own}") == 101
        assert handshake(address, own, "http://evil.example") == 403
    for foreign in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example"):
        assert handshake(address, foreign) == 403
        assert handshake(address, foreign, f"http://{foreign}") == 403


def test_no_hostile_text_makes_a_request(address, open_page, runs):
    config = example_runs()[0].config()
    assert config.provenance is not None
    run = hostile.hostile_run(runs, config.provenance.base_fingerprint)
    query = f"run={quote(run.name)}&prompt={quote(hostile.EVERYTHING)}"
    query += f"&temperature={quote(hostile.IMAGE)}&base-from=folder"
    query += f"&base-folder={quote(hostile.EVERYTHING)}"
    for name in PAGES:
        page, faults = open_page(f"{address}/{name}?{query}")
        page.get_by_text(f"run {hostile.FOLDER}").wait_for()  # the foot of a finished page
        assert _own(faults) == [], name
        # Drawn as nothing but text: the icon's name would be in a font of its own.
        assert page.locator("img[src*='evil']").count() == 0
        assert page.evaluate(_FOREIGN_LINKS) == []
        assert page.get_by_role("img", name="skull icon").count() == 0
        page.close()


def test_a_message_is_read_as_it_was_written(address, open_page):
    page, _ = open_page(f"{address}/Compare?temperature={quote(hostile.IMAGE)}&run=*a*_b_~c~$d$")
    alerts = page.get_by_test_id("stAlert")
    alerts.first.wait_for()
    page.get_by_text("address asks for").wait_for()
    said = " ".join(alerts.all_inner_texts()).replace("\u2060", "")
    assert "'*a*_b_~c~$d$' cannot name a run" in said
    assert f"temperature={hostile.IMAGE}"[:50] in said
