"""Every figure and every sentence about results comes out of a shipped file."""

import hashlib
import re

import pytest

from csreft_core.analysis import results
from csreft_core.analysis.subject import open_subject
from tests.architecture import measured_texts as texts
from tests.repository import ROOT

TEMPLATES = {name: text.template.read_text(encoding="utf-8") for name, text in texts.TEXTS.items()}
HELD = [
    body
    for text in TEMPLATES.values()
    for kind, body in texts.COMMENT.findall(text)
    if kind == "holds"
]
# What has digits and is no result: code, addresses, claims, the level of intervals, layers' names.
_NO_RESULT = re.compile(
    r"`[^`]*`|\]\([^)]*\)|\b[CR][1-7]\b|\b95 %|ReFT's [^.]*tokens\)|section 8|IA³"
)


def digits(template: str) -> list[str]:
    """Lines with a digit that no placeholder gave."""
    text = _NO_RESULT.sub("", texts.PLACE.sub("", texts.COMMENT.sub("", template)))
    return [line for line in text.splitlines() if re.search(r"\d", line)]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_page_is_what_its_template_and_the_files_give(name):
    text = texts.TEXTS[name]
    assert text.present() == text.wanted(), (
        f"{text.page.name} differs from {text.template.name} and the shipped files; "
        "python -m tests.architecture.measured_texts writes it"
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_number_is_written_by_hand(name):
    assert digits(TEMPLATES[name]) == []
    assert digits("reaches 0.99, see `--rank 8`\n{x:.2f} of C1") == ["reaches 0.99, see "]


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_block_says_what_must_hold_or_that_nothing_is_measured(name):
    silent = [
        block
        for block in texts.blocks(TEMPLATES[name])
        if not texts.COMMENT.search(block) and not block.startswith(("|", "#"))
    ]
    assert silent == []


@pytest.mark.parametrize("statement", dict.fromkeys(HELD))
def test_what_the_text_says_is_so(statement):
    assert texts.value_of(statement)


def test_a_statement_that_is_wrong_is_seen():
    assert not texts.value_of("run('recommended-0', 'exact_match', 'off') > 0.5")
    with pytest.raises(AssertionError):
        texts.value_of("run('recommended-0', 'exact_match', 'nonsense')")


def test_the_results_are_of_the_shipped_runs():
    """A run that was trained again has another adapter: `judge results` must be asked again."""
    for row in texts._results():
        file = ROOT / "assets/examples" / row["run"] / "adapter.safetensors"
        assert row["adapter"] == hashlib.sha256(file.read_bytes()).hexdigest()[:12], row["run"]


def test_a_part_of_the_results_comes_out_again():
    subject = open_subject(f"{results.EXAMPLES}/recommended-0")
    encoded = subject.encoded(subject.split("validation"))
    right = results.answer_losses(subject, encoded, "learned")[1]
    for part, value, low, high, n, over in results.exact_match(encoded, right):
        kept = texts.run("recommended-0", "exact_match", "learned", split="validation", part=part)
        assert (kept.n, kept.over) == (n, over)
        assert (float(kept), kept.low, kept.high) == pytest.approx((value, low, high), abs=1e-6)
