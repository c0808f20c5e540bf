"""What tables of one page share is computed once, and anew where anything of it has changed."""

import pytest
import torch

from csreft_core.analysis.latest import Latest
from csreft_core.analysis.subject import open_subject


@pytest.fixture
def shipped():
    return open_subject("assets/examples/recommended-0")


def test_the_latest_values_are_kept_and_no_more(shipped):
    asked, latest = [], Latest[str](2)

    def value(key):
        return latest.of(shipped, key, lambda: asked.append(key) or f"value of {key}")

    assert [value(key) for key in "aab"] == ["value of a", "value of a", "value of b"]
    assert asked == ["a", "b"]
    value("a")  # is the latest again, so b goes
    value("c")
    value("a")
    assert asked == ["a", "b", "c"]
    value("b")
    assert asked == ["a", "b", "c", "b"]


def test_a_changed_adapter_has_other_values(shipped):
    asked, latest = [], Latest[int](2)
    latest.of(shipped, "key", lambda: asked.append(1) or 1)
    with torch.no_grad():
        next(shipped.adapter.parameters()).add_(0.0)
    latest.of(shipped, "key", lambda: asked.append(1) or 1)
    assert len(asked) == 2
