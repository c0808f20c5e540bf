"""What a newcomer does, in a real Chromium: look at Start; train, reload, stop, resume, finish."""

import json
import re

from playwright.sync_api import expect

from tests.browser.steps import answers, progress, wait_for_state, wait_until_drawn

# Streamlit looks for its server below a page's own address first and finds it one level up.
_PROBE = re.compile(r"404 \(Not Found\) \S+/(Train|Runs)/_stcore/(health|host-config)$")


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


def test_train_reload_stop_resume_finish(address, open_page, runs):
    steps = 400  # of four prompts, some 10 s on two cores: time to reload and to stop
    asked = {"steps": steps, "batch_size": 4, "eval_every": steps}
    settings = "&".join(f"set=train.{name}={value}" for name, value in asked.items())
    page, faults = open_page(f"{address}/Train?{settings}")
    page.get_by_role("button", name="Start training").click()
    wait_for_state(page, "running")
    assert "run=recommended" in page.url
    page.get_by_text("first evaluation").or_(page.get_by_text("training: step")).first.wait_for()

    page.reload()
    wait_for_state(page, "running")  # still attached: the run is in the address
    run = runs / "recommended"
    page.wait_for_function("/training: step [1-9]/.test(document.body.innerText)")
    page.get_by_role("button", name="Stop and save").click()
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
