"""Scores of an answer from the logits of its own tokens alone, in every family."""

import pytest
import torch
from torch.nn import functional as F

from csreft_core.attachment.attach import attach
from csreft_core.attachment.passes import request
from csreft_core.errors import UnsupportedModelError
from csreft_core.inference import scoring as evaluation
from csreft_core.inference.scoring import answer_scores
from csreft_core.skills.batching import IGNORED, collate
from csreft_core.skills.encoding import Example
from csreft_core.skills.skill_set import Row
from tests.families import ALL_FAMILIES, build
from tests.tiny import make_adapter, tiny_base

EXAMPLES = [
    Example((1, 5, 6, 7, 8), (9, 10)),
    Example((1, 5), (11, 12, 13, 14)),
    Example((1, 20, 21, 22, 23, 24, 25), (30,)),
]


def plain_scores(base, adapter, batch):
    """By definition: all logits of the model, each label at the token before it."""
    places = (batch.attention_mask.cumsum(1) - 1).clamp(min=0)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    with attach(base) as attachment:
        output, _ = attachment.forward(
            request(adapter, "uniform"),
            prompt_mask=batch.prompt_mask,
            position_ids=places,
            use_cache=False,
            **inputs,
        )
    logits, labels = output.logits[:, :-1], batch.labels[:, 1:]
    nll = F.cross_entropy(logits.mT, labels, ignore_index=IGNORED, reduction="none").sum(1)
    right = (logits.argmax(-1) == labels) | (labels == IGNORED)
    return nll, right.all(1).float()


@ALL_FAMILIES
def test_scores_and_gradients_are_those_of_all_logits(family):
    base = tiny_base(build(family))
    adapter, batch = make_adapter(base), collate(EXAMPLES, 0)
    trained = [p for p in adapter.parameters() if p.requires_grad]
    with attach(base) as attachment:
        nll, right, _ = answer_scores(attachment, request(adapter, "uniform"), batch)
    gradients = torch.autograd.grad(nll.sum(), trained, allow_unused=True)
    expected, exact = plain_scores(base, adapter, batch)
    plain = torch.autograd.grad(expected.sum(), trained, allow_unused=True)
    torch.testing.assert_close(nll, expected, rtol=1e-6, atol=1e-5)
    assert torch.equal(right, exact)
    assert any(g is not None and g.abs().max() > 0 for g in gradients)
    for ours, theirs in zip(gradients, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@ALL_FAMILIES
def test_the_head_multiplies_the_answers_tokens_alone(family):
    base, seen = tiny_base(build(family)), []
    head = base.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _m, _a, logits: seen.append(logits.shape))
    with attach(base) as attachment, torch.no_grad():
        answer_scores(attachment, request(make_adapter(base), "uniform"), collate(EXAMPLES, 0))
    handle.remove()
    assert seen == [(1, 7, 96)]


def test_a_base_without_a_head_of_its_own_gives_the_same(tiny_llama, monkeypatch):
    base, batch = tiny_base(tiny_llama), collate(EXAMPLES, 0)
    req = request(make_adapter(base), "uniform")
    with attach(base) as attachment, torch.no_grad():
        expected, right, this = answer_scores(attachment, req, batch)
    assert this.head_picked
    monkeypatch.setattr(type(base.model), "get_output_embeddings", lambda _: None)
    with attach(base) as attachment, torch.no_grad():
        nll, same, this = answer_scores(attachment, req, batch)
    assert not this.head_picked
    torch.testing.assert_close(nll, expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(right, same)


@pytest.mark.parametrize(("label", "right"), [(3, 1.0), (5, 0.0)])
def test_of_equal_logits_the_first_is_the_answer(tiny_llama, label, right):
    """As greedy decoding has it."""
    base = tiny_base(tiny_llama)
    head = base.model.get_output_embeddings()
    handle = head.register_forward_hook(
        lambda _m, _a, logits: torch.zeros_like(logits).index_fill(-1, torch.tensor([3, 5]), 1.0)
    )
    with attach(base) as attachment, torch.no_grad():
        batch = collate([Example((1, 5, 6), (label, label))], 0)
        _, exact, _ = answer_scores(attachment, request(make_adapter(base), "uniform"), batch)
    handle.remove()
    assert exact.tolist() == [right]


@pytest.mark.parametrize("lost", ["", "unknown", "changed", "cut"])
def test_tokens_that_are_not_the_answer_never_count_as_right(tiny_llama, lost):
    """Whatever the logits say: the unknown token may well be the most likely one."""
    base, adapter = tiny_base(tiny_llama), None
    head = base.model.get_output_embeddings()
    handle = head.register_forward_hook(
        lambda _m, _a, logits: torch.zeros_like(logits).index_fill(-1, torch.tensor([3]), 1.0)
    )
    examples = (Example((1, 5, 6), (3, 3), lost), Example((1, 5), (3,)))
    rows = (Row(("a",), "p", "r", "test"), Row(("b",), "p", "r", "test"))
    encoded = evaluation.Encoded(rows, examples)
    with attach(base) as attachment, torch.no_grad():
        _, exact, _ = answer_scores(
            attachment, request(make_adapter(base), "uniform"), collate(examples, 0)
        )
        found = [
            evaluation.evaluate(attachment, adapter, encoded, decode=decode)
            for decode in (True, False)
        ]
    handle.remove()
    right = [float(not lost), 1.0]
    assert exact.tolist() == right
    for scores in found:
        assert [scores["skills"][name]["exact_match"] for name in "ab"] == right


def test_a_loss_that_is_no_number_is_said_with_its_row(tiny_llama):
    """Half of the numbers end at 65,504; a mean over them would be nan without a word."""
    base = tiny_base(tiny_llama)
    rows = (Row(("a",), "how many", "r", "test"),)
    encoded = evaluation.Encoded(rows, (Example((1, 5, 6), (3, 3)),))
    head = base.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _m, _a, logits: (logits * torch.inf).half().float())
    with (
        attach(base) as attachment,
        pytest.raises(UnsupportedModelError, match=r"'how many' is no number.*base.precision"),
    ):
        evaluation.evaluate(attachment, None, encoded, decode=False)
    handle.remove()


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("The plural of fox is Foxes.", "foxes", True),
        ("foxes", "foxes", True),
        ("The plural of fox is firefoxes.", "foxes", False),
        ("It is Addis Ababa, of course", "addis ababa", True),
        ("It is Addis, then Ababa", "addis ababa", False),
        ("three (3) foxes", "(3)", True),
        ("", "foxes", False),
    ],
)
def test_contained_words_are_whole_and_side_by_side(text, words, expected):
    assert evaluation.has_words(text, words) is expected


def test_an_answer_may_stand_within_a_sentence(tiny_llama):
    """Answers of w5 without end: never exact; right where w5 is asked for, wrong for w55 or w3."""
    base = tiny_base(tiny_llama)
    head = base.model.get_output_embeddings()
    handle = head.register_forward_hook(
        lambda _m, _a, logits: torch.zeros_like(logits).index_fill(-1, torch.tensor([5]), 1.0)
    )
    examples = tuple(Example((1, 6, 7), (token, 2)) for token in (5, 55, 3))
    rows = tuple(Row((s,), "p", f"w{t}", "test") for s, t in (("a", 5), ("b", 55), ("c", 3)))
    encoded = evaluation.Encoded(rows, examples)
    with attach(base) as attachment:
        found = evaluation.evaluate(attachment, None, encoded, contains=True)
        plain = evaluation.evaluate(attachment, None, encoded)
    handle.remove()
    assert [found["skills"][name].pop("contains") for name in "abc"] == [1.0, 0.0, 0.0]
    assert found["mean"].pop("contains") == pytest.approx(1 / 3)
    assert found == plain
