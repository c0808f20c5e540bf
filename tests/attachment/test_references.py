"""Answers and logits against a reference that shares nothing with the way edits get in.

The reference reads one row at a time: no padding, no cache, no attachment. torch's own forward
hooks add what the adapter's numerics give, at tokens that are counted here by hand.
"""

from contextlib import contextmanager

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from csreft_core.attachment.attach import attach
from tests.families import build, generated, logits, step_logits
from tests.tiny import make_adapter, padded, tiny_base, tokens

pytestmark = pytest.mark.libraries

CLOSE = 1e-4  # float32 over three blocks, in another order of batch and cache
N_NEW, EOS, BEAMS = 3, 2, 3
BATCHES = {"one": (6,), "equal": (5, 5, 5), "unequal": (7, 4, 1)}
RULES = ["all", "all_prompt", "f1", "l1", "f2+l2"]


def edited_tokens(rule: str, n_prompt: int, n_all: int) -> list[list[int]]:
    """Places of the first and of the last tokens of a rule, by hand."""
    if rule in ("all", "all_prompt"):
        return [list(range(n_all if rule == "all" else n_prompt)), []]
    if rule == "f1":
        return [[0], []]
    if rule == "l1":
        return [[], [n_prompt - 1]]
    return {
        1: [[], [0]],
        2: [[0], [1]],
        3: [[0], [1, 2]],
    }.get(n_prompt, [[0, 1], [n_prompt - 2, n_prompt - 1]])


@contextmanager
def by_hooks(base, adapter, rule: str, row: torch.Tensor, n_prompt: int):
    """The edits of one row of tokens, by hooks of torch."""
    embedded = base.model.get_input_embeddings()(row[None, :n_prompt])
    router, handles = adapter.router, []
    read = router.features(embedded, torch.ones(1, n_prompt, dtype=torch.bool))
    gates = router.gates(router(read))

    def hook(layer):
        subspaces = adapter.at(layer)

        def edit(_module, _args, output):
            h = (output[0] if isinstance(output, tuple) else output).clone()
            for last, places in enumerate(edited_tokens(rule, n_prompt, len(row))):
                group = last if subspaces.n_groups == 2 else 0
                for place in places:
                    h[:, place] += subspaces(h[:, place], gates, group)
            return (h, *output[1:]) if isinstance(output, tuple) else h

        return edit

    for layer in adapter.layers:
        handles.append(base.blocks[layer].register_forward_hook(hook(layer)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def reference(base, adapter, rule, row, n_prompt) -> torch.Tensor:
    """Logits [token, vocab] of one row, whose first tokens are the prompt."""
    with by_hooks(base, adapter, rule, row, n_prompt):
        return base.model(row[None], use_cache=False).logits[0]


def reference_beams(base, adapter, rule, prompt) -> tuple[torch.Tensor, float]:
    """The best of the beams after N_NEW tokens, and its mean log-probability."""
    beams = [(0.0, prompt)]
    for _ in range(N_NEW):
        longer = []
        for score, row in beams:
            last = reference(base, adapter, rule, row, len(prompt))[-1].log_softmax(0)
            last[EOS] = -torch.inf
            best = last.topk(BEAMS)
            for gain, token in zip(best.values, best.indices, strict=True):
                longer.append((score + gain.item(), torch.cat([row, token[None]])))
        beams = sorted(longer, key=lambda one: -one[0])[:BEAMS]
    return beams[0][1], beams[0][0] / N_NEW


@pytest.fixture(scope="module")
def bases():
    models = {family: build(family) for family in ("llama", "gpt2", "gemma3")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models["mamba"] = MambaForCausalLM(
            MambaConfig(
                vocab_size=96,
                hidden_size=32,
                num_hidden_layers=3,
                state_size=4,
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=0,
                initializer_range=0.1,
            )
        ).eval()
    return {family: tiny_base(model) for family, model in models.items()}


def inputs_of(rows) -> dict[str, torch.Tensor]:
    """Equal rows go without a mask: nothing tells where they end but their width."""
    inputs = padded(rows)
    return inputs if len({*map(len, rows)}) > 1 else {"input_ids": inputs["input_ids"]}


def check_steps(base, adapter, rule, rows, out, *, greedy: bool) -> None:
    """Each step's logits of `generate`, given the tokens that it chose."""
    width, each = max(map(len, rows)), len(out.sequences) // len(rows)
    for i, answer in enumerate(out.sequences[:, width:]):
        prompt, found = rows[i // each], step_logits(out)[i]
        whole = reference(base, adapter, rule, torch.cat([prompt, answer]), len(prompt))
        assert (found - whole[len(prompt) - 1 : -1]).abs().max() <= CLOSE
        if greedy:
            found[:, EOS] = -torch.inf
            assert torch.equal(found.argmax(-1), answer)


def answers(base, adapter, batches, **how):
    with attach(base, adapter):
        return [generated(base, inputs_of(rows), n=N_NEW, **how) for rows in batches]


CASES = [
    *(("llama", rule, True) for rule in RULES),
    ("llama", "f2+l2", False),
    *((family, rule, True) for family in ("gpt2", "gemma3") for rule in ("all", "f2+l2")),
    *(("mamba", rule, True) for rule in ("all", "f1")),  # whose cache counts no tokens
]
EACH_CASE = pytest.mark.parametrize(("family", "rule", "tied"), CASES)
CACHE = pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "whole"])


@CACHE
@EACH_CASE
def test_greedy_answers(bases, family, rule, tied, use_cache):
    base = bases[family]
    adapter = make_adapter(base, layers=(0, 1), positions=rule, tied=tied)
    batches = [tokens(*lengths) for lengths in BATCHES.values()]
    found = answers(base, adapter, batches, use_cache=use_cache)
    for rows, out in zip(batches, found, strict=True):
        check_steps(base, adapter, rule, rows, out, greedy=True)


@CACHE
@pytest.mark.parametrize("rule", ["all", "f2+l2"])
def test_drawn_answers(bases, rule, use_cache):
    base = bases["llama"]
    adapter = make_adapter(base, layers=(0, 1), positions=rule)
    batches = [tokens(*lengths) for lengths in BATCHES.values()]
    torch.manual_seed(0)
    how = {"do_sample": True, "num_return_sequences": 2, "use_cache": use_cache}
    found = answers(base, adapter, batches, **how)
    for rows, out in zip(batches, found, strict=True):
        assert len(out.sequences) == 2 * len(rows)
        check_steps(base, adapter, rule, rows, out, greedy=False)


@pytest.mark.parametrize("rule", ["all", "f2+l2"])
def test_beams(bases, rule):
    base = bases["llama"]
    adapter = make_adapter(base, layers=(0, 1), positions=rule)
    batches = [tokens(*lengths) for lengths in BATCHES.values()]
    how = {"num_beams": BEAMS, "output_scores": True}
    both = [answers(base, adapter, batches, **how, use_cache=cached) for cached in (True, False)]
    for rows, cached, whole in zip(batches, *both, strict=True):
        for i, row in enumerate(rows):
            best, mean = reference_beams(base, adapter, rule, row)
            for out in (cached, whole):
                assert torch.equal(out.sequences[i, -N_NEW:], best[-N_NEW:])
                assert abs(out.sequences_scores[i].item() - mean) <= CLOSE


@pytest.mark.parametrize("side", ["left", "right"])
@EACH_CASE
def test_one_forward(bases, family, rule, tied, side):
    base = bases[family]
    adapter = make_adapter(base, layers=(0, 1), positions=rule, tied=tied)
    for lengths in BATCHES.values():
        rows = tokens(*lengths)
        inputs = padded(rows, side)
        with attach(base, adapter):
            found = logits(base, inputs)
        bare = logits(base, padded(rows[:1]))[0]
        for i, row in enumerate(rows):
            expected = reference(base, adapter, rule, row, len(row))
            real = inputs["attention_mask"][i].bool()
            assert (found[i][real] - expected).abs().max() <= CLOSE
        assert (reference(base, adapter, rule, rows[0], len(rows[0])) - bare).abs().max() > 1e-2
