"""The last block's feed-forward part on the wanted tokens alone."""

import pytest
import torch
from torch import nn

from csreft_core.attachment.attach import attach
from csreft_core.attachment.passes import request
from csreft_core.attachment.token_wise import at_sites, candidates, is_token_wise
from csreft_core.config import RouterConfig
from csreft_core.inference.scoring import answer_scores
from csreft_core.skills.batching import collate
from csreft_core.skills.encoding import Example
from tests.families import FAMILIES, build
from tests.tiny import make_adapter, tiny_base

EXAMPLES = [Example((1, 5, 6, 7), (9, 10)), Example((1, 5), (11, 12, 13))]
SITES = (torch.tensor([0, 1, 1]), torch.tensor([2, 0, 3]))
# OPT has no module for its feed-forward part.
WITH_A_PART = [family for family in FAMILIES if family != "opt"]


class Mixes(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return self.linear(x) + x.mean(1, keepdim=True)


def test_a_linear_layer_takes_tokens_alone_and_a_mixing_one_does_not():
    states = torch.randn(2, 4, 8)
    alone, mixing, norm = nn.Linear(8, 8), Mixes(), nn.LayerNorm(8)
    assert is_token_wise(alone, alone, states, SITES)
    assert not is_token_wise(mixing, mixing, states, SITES)
    narrow, pair = nn.Linear(8, 4), nn.Identity()
    assert not is_token_wise(narrow, narrow, states, SITES)
    assert not is_token_wise(pair, lambda x: (x, x), states, SITES)
    assert candidates(nn.ModuleList([alone, norm, mixing])) == [alone, mixing]


def test_states_that_cannot_tell_decide_nothing():
    states, mixing = torch.randn(1, 2, 8), Mixes()
    none, every = (torch.zeros(0, dtype=torch.long),) * 2, (torch.tensor([0, 0]), torch.arange(2))
    for sites in (none, every):
        assert not is_token_wise(mixing, mixing, states, sites)
    alone = nn.Linear(8, 8)
    assert not is_token_wise(alone, alone, states, every)
    assert is_token_wise(alone, alone, torch.randn(2, 4, 8), SITES)


def test_output_and_gradient_at_the_sites_are_those_of_the_whole():
    part, states = nn.Sequential(nn.Linear(8, 8), nn.ReLU()), torch.randn(2, 4, 8)
    x, y = states.clone().requires_grad_(), states.clone().requires_grad_()
    whole, some = part(x), at_sites(part, y, SITES)
    torch.testing.assert_close(some[SITES], whole[SITES])
    assert some.count_nonzero() == some[SITES].count_nonzero() > 0
    whole[SITES].sum().backward()
    some.sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("family", WITH_A_PART)
def test_the_last_block_alone_sees_fewer_tokens(family):
    base, seen = tiny_base(build(family)), {1: [], 2: []}
    for layer, tokens in seen.items():
        [part] = [
            child
            for child in candidates(base.blocks[layer])
            if "attention" not in type(child).__name__.lower()
        ]
        inside = next(
            m for m in part.modules() if m is not part and any(True for _ in m.parameters(False))
        )
        inside.register_forward_hook(
            lambda _m, args, _o, tokens=tokens: tokens.append(args[0].numel() // args[0].shape[-1])
        )
    with attach(base) as attachment, torch.no_grad():
        for _ in range(2):
            answer_scores(attachment, request(make_adapter(base), "uniform"), collate(EXAMPLES, 0))
    # In the last block twice as a whole, to try it out, and then the five answer tokens alone.
    assert seen == {1: [12, 12], 2: [12, 12, 5, 5]}


@pytest.mark.parametrize("positions", ["all", "l1"])
def test_an_edit_of_the_last_block_is_the_same(tiny_llama, positions):
    base, batch = tiny_base(tiny_llama), collate(EXAMPLES, 0)
    adapter = make_adapter(base, layers=(2,), positions=positions)
    with attach(base) as attachment, torch.no_grad():
        nll, _, _ = answer_scores(attachment, request(adapter, "uniform"), batch)
        # Whoever reads the last block gets all of it, so this is the plain way.
        whole, _, _ = answer_scores(attachment, request(adapter, "uniform", capture=(2,)), batch)
        bare, _, _ = answer_scores(attachment, request(adapter, "off"), batch)
    torch.testing.assert_close(nll, whole)
    assert (nll - bare).abs().max() > 1e-3


def test_a_router_that_reads_the_last_block_gets_all_of_it(tiny_llama):
    base, batch = tiny_base(tiny_llama), collate(EXAMPLES, 0)
    router = RouterConfig(layer=2)
    adapter = make_adapter(base, layers=(2,), router=router)
    with attach(base) as attachment, torch.no_grad():
        _, _, this = answer_scores(attachment, request(adapter), batch)
        _, plain = attachment.forward(
            request(adapter),
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            prompt_mask=batch.prompt_mask,
            use_cache=False,
        )
    torch.testing.assert_close(this.gates, plain.gates)
