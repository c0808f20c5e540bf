"""Records of a made-up run, and what a page under test says."""

import re
from collections.abc import Sequence
from time import monotonic, sleep

from streamlit.testing.v1 import AppTest

SKILLS = ("french", "category", "plural", "spelling")


def records(steps: int = 4, fall: float = 0.5, skills: Sequence[str] = SKILLS) -> list[dict]:
    """Metrics in which every loss falls and every skill's own gate opens."""
    found = []
    for step in range(steps + 1):
        loss = 3.0 * fall**step
        gates = {
            skill: {other: 0.5 + (0.1 if other == skill else -0.1) * step for other in skills}
            for skill in skills
        }
        if step:
            found.append(
                {
                    "kind": "step",
                    "step": step,
                    "loss": loss,
                    "loss_by_skill": dict.fromkeys(skills, loss),
                    "gates_by_skill": gates,
                    "gate_entropy": 0.6,
                    "orthonormality_error": 1e-7,
                    "constraint_error": 1e-7,
                    "overlap": 0.0,
                    "grad_norm": 1.0,
                    "lr": 0.01,
                    "router_lr": 0.01,
                    "tokens_per_second": 900.0,
                    "time_left_s": 3.0,
                    "elapsed_s": 1.0 * step,
                }
            )
        scores = {"loss": loss, "exact_match": min(1.0, step / 4), "n": 60}
        found.append(
            {
                "kind": "eval",
                "step": step,
                "split": "validation",
                "skills": dict.fromkeys(skills, scores),
                "mean": {"loss": loss, "exact_match": scores["exact_match"]},
                "gates_by_skill": gates,
            }
        )
    return found


def assert_no_bug(app: AppTest) -> None:
    """No exception reached the page."""
    assert not app.exception, [e.message for e in app.exception]


def texts(app: AppTest) -> str:
    """Everything that a page says, in one text, as one reads it."""
    kinds = (
        app.title,
        app.header,
        app.subheader,
        app.markdown,
        app.caption,
        app.info,
        app.warning,
        app.error,
        app.success,
    )
    return as_read("\n".join(str(element.value) for kind in kinds for element in kind))


def as_read(markdown: str) -> str:
    """Markdown without what `markup.plain` adds to a text that is not ours."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown).replace("\u2060", "")


def opened_parts(open_page, page: str, name: str, parts, **query: str) -> dict[str, AppTest]:
    """The page with each of its tabs open in turn, by the tab's label.

    Args:
        open_page: The fixture `open_app`.
        page: The page's file.
        name: Of the tabs in the address.
        parts: Their labels.
        query: The rest of the address.
    """
    return {part: open_page(page, **query, **{name: part}) for part in parts}


def n_charts(app: AppTest) -> int:
    """How many figures a page shows."""
    return len(app.get("plotly_chart"))


def run_until(app, condition):
    end = monotonic() + 60
    while not condition(app):
        assert monotonic() < end
        sleep(0.05)
        app.run()
        assert_no_bug(app)
