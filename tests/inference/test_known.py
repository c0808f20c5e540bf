"""What the base has read once gives the same scores, gates and states as whole rows each time."""

import pytest
import torch

from csreft_core.attachment.attach import attach
from csreft_core.attachment.passes import request
from csreft_core.config import PLAIN_TEMPLATE, RouterConfig
from csreft_core.inference import known
from csreft_core.inference.engine import Engine
from csreft_core.inference.known import FEWEST_COLUMNS, alike_together, read_ahead
from csreft_core.inference.scoring import answer_scores, scores_under
from csreft_core.reft.positions import PositionRule
from csreft_core.skills.batching import collate
from csreft_core.skills.encoding import Example
from tests.families import ALL_FAMILIES, build
from tests.tiny import make_adapter, tiny_base

BEGINNING = tuple(range(3, 4 + FEWEST_COLUMNS))
EXAMPLES = [
    Example((*BEGINNING, 5, 6, 7, 8), (9, 10)),
    Example((*BEGINNING, 30), (11, 12, 13)),
    Example((*BEGINNING, 21, 22, 23, 24, 25, 26), (30,)),
]
GATES = ([0.0, 0.0], [1.0, 0.0], [0.3, 0.9])


@ALL_FAMILIES
def test_scores_under_many_gates_are_those_of_whole_rows(family):
    base = tiny_base(build(family))
    adapter, batch = make_adapter(base, positions="l2"), collate(EXAMPLES, 0)
    with attach(base) as attachment, torch.no_grad():
        requests = [request(adapter, gates) for gates in GATES] + [request(adapter, "learned")]
        found = scores_under(attachment, adapter, batch, requests)
        for (nll, right), req in zip(found, requests, strict=True):
            expected, exact, _ = answer_scores(attachment, req, batch)
            torch.testing.assert_close(nll, expected, rtol=1e-5, atol=1e-4)
            assert torch.equal(right, exact)
    assert not torch.allclose(found[0][0], found[1][0], atol=1e-3)


@pytest.mark.parametrize("positions", ["l1", "f1+l1", "all", "all_prompt"])
def test_what_is_known_ends_before_the_first_edited_token(tiny_llama, positions):
    base = tiny_base(tiny_llama)
    adapter, batch = make_adapter(base, positions=positions), collate(EXAMPLES, 0)
    with attach(base) as attachment, torch.no_grad():
        read = read_ahead(attachment, adapter, batch)
        requests = [request(adapter, gates) for gates in GATES]
        found = scores_under(attachment, adapter, batch, requests)
        for (nll, _), req in zip(found, requests, strict=True):
            expected, _, _ = answer_scores(attachment, req, batch)
            torch.testing.assert_close(nll, expected, rtol=1e-6, atol=1e-5)
    n_answer, n_last = 3, 1
    width = batch.input_ids.shape[1]
    n_known = read.start(adapter).n_columns
    assert n_known == (width - n_answer - n_last if positions == "l1" else 0)


def test_a_shared_beginning_is_read_once(tiny_llama):
    base, seen = tiny_base(tiny_llama), []
    adapter, batch = make_adapter(base, positions="l1"), collate(EXAMPLES, 0)
    base.blocks[-1].register_forward_hook(lambda _m, _a, out: seen.append(tuple(out.shape[:2])))
    with attach(base) as attachment, torch.no_grad():
        assert read_ahead(attachment, adapter, batch) is not None  # the first one tries it out
        seen.clear()
        read = read_ahead(attachment, adapter, batch)
        n = len(BEGINNING)
        assert seen == [(1, n), (3, batch.input_ids.shape[1] - n)]
        layer = min(adapter.layers)
        _, whole = attachment.forward(
            request(adapter, GATES[0], capture=(layer,)), **batch.inputs, use_cache=False
        )
    states, real = read.left_padded(read.states[layer]), batch.attention_mask.bool()
    torch.testing.assert_close(states[real], whole.states[layer][0][real], rtol=1e-5, atol=1e-5)


def test_rows_with_equal_rests_stand_together():
    examples = [EXAMPLES[0], EXAMPLES[2], EXAMPLES[1], EXAMPLES[0]]
    assert alike_together(PositionRule(suffix=1), examples).tolist() == [1, 0, 3, 2]
    assert alike_together(PositionRule(prefix=1), examples).tolist() == [0, 1, 2, 3]


def test_few_tokens_are_not_read_ahead(tiny_llama):
    base = tiny_base(tiny_llama)
    short = collate([Example((1, 5, 6), (7,)), Example((1, 5, 8, 9), (7,))], 0)
    with attach(base) as attachment:
        assert read_ahead(attachment, make_adapter(base, positions="l1"), short) is None


def test_a_base_that_is_not_exact_reads_whole_rows(tiny_llama, monkeypatch):
    base = tiny_base(tiny_llama)
    adapter, batch = make_adapter(base, positions="l1"), collate(EXAMPLES, 0)
    monkeypatch.setattr(known, "is_exact", lambda _: False)
    with attach(base) as attachment:
        assert read_ahead(attachment, adapter, batch) is None


@pytest.mark.parametrize("router", [-1, 0])
@pytest.mark.parametrize("layers", [(0,), (1,), (0, 2)])
def test_traces_are_those_of_two_whole_forwards(tiny_llama, layers, router):
    engine = Engine(tiny_base(tiny_llama))
    adapter = make_adapter(engine.base, positions="l1", router=RouterConfig(layer=router))
    prompts = [example.prompt for example in EXAMPLES]
    options = {"layers": layers, "template": PLAIN_TEMPLATE}
    plain, edited = engine.traces(adapter, prompts, "learned", **options)
    for found, which in ((plain, None), (edited, adapter)):
        whole = engine.trace(which, prompts, **options)
        assert torch.equal(found.is_token, whole.is_token)
        for layer in layers:
            for one, other in (
                (found.before[layer], whole.before[layer]),
                (found.after[layer], whole.after[layer]),
            ):
                torch.testing.assert_close(
                    one[whole.is_token], other[whole.is_token], rtol=1e-5, atol=1e-5
                )
        if which is not None:
            torch.testing.assert_close(found.gates, whole.gates, rtol=1e-6, atol=1e-6)


def test_the_next_token_under_many_settings_is_that_of_whole_forwards(tiny_llama):
    engine = Engine(tiny_base(tiny_llama))
    adapter = make_adapter(engine.base, positions="l1")
    prompts = [example.prompt for example in EXAMPLES]
    found = engine.next_logits(
        adapter, prompts, [None, "learned", "uniform"], template=PLAIN_TEMPLATE
    )
    for logits, (which, setting) in zip(
        found, ((None, "learned"), (adapter, "learned"), (adapter, "uniform")), strict=True
    ):
        whole = engine.trace(which, prompts, setting, template=PLAIN_TEMPLATE).logits
        torch.testing.assert_close(logits, whole, rtol=1e-5, atol=1e-5)
