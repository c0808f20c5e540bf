"""Hooks: the edit is at the right tokens of every family, and nothing else changes."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from csreft_core.attachment.attach import Request, attach, request
from csreft_core.attachment.start import Start
from csreft_core.base.blocks import Form
from csreft_core.base.checks import Conduct
from csreft_core.config import RouterConfig
from csreft_core.errors import ConfigError
from tests.families import ALL_FAMILIES, SAME_LOGITS, Spy, build, edited, logits, with_positions
from tests.tiny import make_adapter, padded, tiny_base, tokens


@pytest.fixture
def base(tiny_llama):
    return tiny_base(tiny_llama)


# --- gates off -------------------------------------------------------------------------------


@pytest.mark.fast
@ALL_FAMILIES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_closed_gates_through_the_edit_give_the_bare_logits_bit_for_bit(family, dtype):
    base = tiny_base(build(family, dtype))
    adapter = make_adapter(base, layers=(0, 2), positions="all")
    inputs = padded(tokens(7, 4))
    mask = inputs["attention_mask"]
    # The bare model needs the position ids that our hook gives, see the tests below.
    places = (mask.cumsum(1) - 1).clamp(min=0)
    own = {} if family == "opt" else {"position_ids": places}
    bare = logits(base, inputs, **own)
    spy = Spy(adapter)
    for gates in ("off", [0.0, 0.0]):
        assert torch.equal(edited(base, adapter, inputs, gates)[mask.bool()], bare[mask.bool()])
    assert (spy.calls, spy.sites) == (4, 4 * 11)
    assert (edited(base, adapter, inputs, "uniform") - bare)[mask.bool()].abs().max() > 1e-2


def test_a_request_without_adapter_gives_the_bare_logits(base):
    inputs, bare = padded(tokens(6)), logits(base, padded(tokens(6)))
    with attach(base) as attachment:
        output, this = attachment.forward(Request(None), **inputs)
        assert torch.equal(output.logits, bare)
        assert this.gates is None
        other, _ = attachment.forward(request(make_adapter(base)), **inputs)
        assert not torch.equal(other.logits, bare)


def test_base_weights_are_untouched(base):
    before = {n: p.clone() for n, p in base.model.named_parameters()}
    adapter = make_adapter(base).train()
    with attach(base, adapter):
        base.model(**padded(tokens(6))).logits.sum().backward()
    assert all(torch.equal(p, before[n]) for n, p in base.model.named_parameters())
    assert all(p.grad is None for p in base.model.parameters())
    assert adapter.at(1).W.grad.abs().max() > 0


# --- where the edit is -----------------------------------------------------------------------


@pytest.mark.fast
@ALL_FAMILIES
def test_layer_is_the_output_of_that_block_at_the_chosen_tokens(family):
    """Captured states against a plain forward, and the edit by hand at one token."""
    base = tiny_base(build(family))
    adapter = make_adapter(base, layers=(1,), positions="l1")
    inputs = padded(tokens(6))
    plain = []
    handle = base.blocks[1].register_forward_hook(
        lambda _m, _a, out: plain.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.no_grad():
        base.model(**inputs)
    handle.remove()
    with torch.no_grad(), attach(base) as attachment:
        _, this = attachment.forward(request(adapter, [1.0, 0.5], capture=(1, 2)), **inputs)
        before, after = this.states[1]
        assert torch.equal(before, plain[0])
        assert torch.equal(after[:, :-1], before[:, :-1])
        delta = adapter.at(1)(before[:, -1], torch.tensor([[1.0, 0.5]]))
        torch.testing.assert_close(after[:, -1], before[:, -1] + delta)
        assert delta.abs().max() > 0.1
        assert torch.equal(*this.states[2])


@ALL_FAMILIES
def test_an_edit_changes_its_layer_and_the_later_ones_only(family):
    base = tiny_base(build(family))
    adapter = make_adapter(base, layers=(1,), positions="l1")
    inputs, every = padded(tokens(6)), (0, 1, 2)
    with torch.no_grad(), attach(base) as attachment:
        _, bare = attachment.forward(Request(None, capture=every), **inputs)
        _, this = attachment.forward(request(adapter, [1.0, 0.5], capture=every), **inputs)
    changed = [not torch.equal(bare.states[layer][1], this.states[layer][1]) for layer in every]
    assert changed == [False, True, True]


class _TupleBlock(nn.Module):
    """A block that returns a tuple, as older models do."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, *args, **kwargs):
        return self.block(*args, **kwargs), "kept"


class _Unpacked(nn.Module):
    """A list entry as the model wants it: gives the tensor of the tuple back."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner").block, name)

    def forward(self, *args, **kwargs):
        hidden, *kept = self.inner(*args, **kwargs)
        assert kept in (["kept"], [None])
        return hidden


def of_tuples(base):
    """The same base, whose blocks give tuples."""
    tuples = nn.ModuleList([_TupleBlock(block) for block in base.model.model.layers])
    base.model.model.layers = nn.ModuleList([_Unpacked(block) for block in tuples])
    return replace(base, blocks=tuples, conduct=Conduct((Form(tuple, 2),) * 3, cuts_rows=False))


def test_blocks_that_return_tuples_are_edited_alike(base):
    inputs, adapter = padded(tokens(6, 3)), make_adapter(base, layers=(0, 2))
    expected = edited(base, adapter, inputs)
    ours = of_tuples(base)
    assert torch.equal(edited(ours, adapter, inputs), expected)
    assert not torch.equal(logits(ours, inputs), expected)


@pytest.mark.parametrize("tuples", [False, True])
def test_known_states_stand_for_blocks_before_any_block_has_run(base, tuples):
    inputs = padded(tokens(6, 3))
    with attach(base) as attachment:
        expected, this = attachment.forward(Request(None, capture=(1,)), **inputs)
    ours = of_tuples(base) if tuples else base
    states, other = this.states[1][0], torch.zeros(this.states[1][0].shape)
    for given, same in ((states, True), (other, False)):
        with attach(ours) as attachment:
            output, _ = attachment.forward(Request(None), **inputs, start=Start({1: given}))
        assert torch.equal(output.logits, expected.logits) == same
    runs, first = [], ours.blocks[0]
    (first.block if tuples else first).self_attn.register_forward_hook(lambda *_: runs.append(1))
    with attach(ours) as attachment:
        attachment.forward(Request(None), **inputs, start=Start({1: states}))
    assert not runs
    normed: list[torch.Tensor] = []
    handle = base.model.model.norm.register_forward_hook(lambda _m, _a, out: normed.append(out))
    with attach(ours) as attachment:
        output, _ = attachment.forward(Request(None), **inputs, last_block=-1)
        assert not runs
        handle.remove()
        whole, _ = attachment.forward(Request(None), **inputs)  # it is of that forward alone
        assert runs
    assert torch.equal(whole.logits, expected.logits)
    embedded = base.model.model.embed_tokens(inputs["input_ids"])
    assert torch.equal(normed[0], base.model.model.norm(embedded))
    assert output.logits.numel() == 0  # the head would multiply for nothing


@with_positions("all", "all_prompt", "f2", "l1", "f2+l2")
def test_padding_changes_nothing(family, positions):
    base = tiny_base(build(family))
    adapter = make_adapter(base, layers=(0, 1), positions=positions)
    rows = tokens(9, 5, 1, 2)
    for side in ("left", "right"):
        inputs = padded(rows, side)
        together = edited(base, adapter, inputs)
        for i, row in enumerate(rows):
            alone = edited(base, adapter, padded([row]))
            real = inputs["attention_mask"][i].bool()
            assert (together[i][real] - alone[0]).abs().max() <= SAME_LOGITS
            assert (alone[0] - logits(base, padded([row]))[0]).abs().max() > 1e-2


def test_padding_content_changes_nothing(base):
    adapter, inputs = make_adapter(base, positions="all"), padded(tokens(7, 3))
    real = inputs["attention_mask"].bool()
    other = {**inputs, "input_ids": inputs["input_ids"].masked_fill(~real, 50)}
    one, two = edited(base, adapter, inputs), edited(base, adapter, other)
    torch.testing.assert_close(one[real], two[real], atol=1e-6, rtol=0)


def test_gpt2_needs_the_position_ids_that_our_hook_makes():
    base = tiny_base(build("gpt2"))
    rows = tokens(9, 4)
    inputs = padded(rows)
    alone = logits(base, padded(rows[1:]))[0]
    without = logits(base, inputs)[1, -4:]
    with attach(base, make_adapter(base), "off"):
        ours = logits(base, inputs)[1, -4:]
    assert (without - alone).abs().max() > 0.05
    assert (ours - alone).abs().max() <= SAME_LOGITS


def test_position_ids_of_the_caller_are_kept(base):
    inputs, adapter = padded(tokens(6)), make_adapter(base)
    places = torch.arange(6)[None] * 2
    with attach(base, adapter, "off"):
        ours = logits(base, inputs, position_ids=places)
    assert torch.equal(ours, logits(base, inputs, position_ids=places))
    assert not torch.equal(ours, logits(base, inputs))


def test_input_embeddings_instead_of_ids(base):
    adapter, inputs = make_adapter(base), padded(tokens(6, 4))
    vectors = base.model.get_input_embeddings()(inputs["input_ids"])
    expected = edited(base, adapter, inputs)
    with attach(base, adapter):
        given = logits(base, {"inputs_embeds": vectors, "attention_mask": inputs["attention_mask"]})
    torch.testing.assert_close(given, expected, atol=1e-6, rtol=0)


# --- prompt and answer -----------------------------------------------------------------------


def test_prompt_mask_says_what_is_edited_and_read(base):
    adapter = make_adapter(base, positions="l1")
    row = tokens(8)[0]
    inputs = padded([row])
    mask = torch.zeros(1, 8, dtype=torch.long)
    mask[:, :5] = 1
    masked = edited(base, adapter, inputs, prompt_mask=mask)
    prompt_alone = edited(base, adapter, padded([row[:5]]))
    assert (masked[:, :5] - prompt_alone).abs().max() <= SAME_LOGITS
    assert (edited(base, adapter, inputs)[:, :5] - prompt_alone).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[1, 1, 0, 0]], r"one value for each token, \[2, 4\], got \[1, 4\]"),
        ([[1], [1]], r"one value for each token, \[2, 4\], got \[2, 1\]"),
        ([[1, 0, 1, 0], [1, 1, 0, 0]], "must mark the first real tokens"),
        ([[1, 1, 0, 0], [0, 1, 1, 0]], "must mark the first real tokens"),
    ],
)
def test_a_prompt_mask_of_another_form_is_refused(base, mask, message):
    with attach(base, make_adapter(base)), pytest.raises(ConfigError, match=message):
        logits(base, padded(tokens(4, 4)), prompt_mask=torch.tensor(mask))


@pytest.mark.parametrize("positions", ["all", "f2+l2"])
def test_a_hole_in_the_mask_is_as_if_it_were_not_there(base, positions):
    adapter, row = make_adapter(base, positions=positions), tokens(6)[0]
    with_hole = torch.cat([row[:3], torch.tensor([50]), row[3:]])[None]
    mask = torch.tensor([[1, 1, 1, 0, 1, 1, 1]])
    expected = edited(base, adapter, padded([row]))
    found = edited(base, adapter, {"input_ids": with_hole, "attention_mask": mask})
    assert (found[:, mask[0].bool()] - expected).abs().max() <= SAME_LOGITS


def test_arguments_may_be_given_by_place(base):
    adapter, inputs = make_adapter(base), padded(tokens(6, 4))
    expected = edited(base, adapter, inputs)
    with attach(base, adapter), torch.no_grad():
        ids, mask = inputs.values()
        for args in ((ids, mask), (ids, mask, None), (ids, mask, None, None)):
            assert torch.equal(base.model(*args).logits, expected)


@pytest.mark.parametrize("granularity", ["per_prompt", "per_token"])
@pytest.mark.parametrize("input", ["first_token", "last_prompt_token", "mean_prompt"])
def test_answer_tokens_do_not_reach_the_gates(base, input, granularity):
    adapter = make_adapter(base, router=RouterConfig(input=input, granularity=granularity))
    row = tokens(8)[0]
    mask = torch.tensor([[1] * 5 + [0] * 3])
    changed_answer, changed_prompt = row.clone(), row.clone()
    changed_answer[6], changed_prompt[[0, 4]] = 50, 50
    gates = []
    with torch.no_grad(), attach(base) as attachment:
        for ids in (row, changed_answer, changed_prompt, row[:5]):
            more = {"prompt_mask": mask} if len(ids) == 8 else {}
            _, this = attachment.forward(request(adapter), **padded([ids]), **more)
            gates.append(this.prompt_gates())
    assert torch.equal(gates[0], gates[1])
    torch.testing.assert_close(gates[0], gates[3], atol=1e-6, rtol=0)
    assert not torch.equal(gates[0], gates[2])


def test_first_token_router_ignores_the_prompt_even_above_the_embedding(base):
    rows = [torch.cat([torch.tensor([1]), row]) for row in tokens(6, 4, 9)]
    spread = {}
    for input in ("first_token", "mean_prompt"):
        for layer in (-1, 1):
            adapter = make_adapter(base, router=RouterConfig(input=input, layer=layer))
            with torch.no_grad(), attach(base) as attachment:
                _, this = attachment.forward(request(adapter), **padded(rows))
            spread[input, layer] = (this.gates.amax(0) - this.gates.amin(0)).max().item()
    assert max(spread["first_token", -1], spread["first_token", 1]) <= 1e-6
    assert min(spread["mean_prompt", -1], spread["mean_prompt", 1]) > 1e-2


def test_two_prompts_get_different_gates_and_their_own_edit(base):
    adapter, rows = make_adapter(base), tokens(6, 6)
    with torch.no_grad(), attach(base) as attachment:
        together, this = attachment.forward(request(adapter), **padded(rows))
        for i in (0, 1):
            alone, single = attachment.forward(request(adapter), **padded(rows[i : i + 1]))
            torch.testing.assert_close(single.gates[0], this.gates[i], atol=1e-6, rtol=0)
            assert (alone.logits[0] - together.logits[i]).abs().max() <= SAME_LOGITS
    assert (this.gates[0] - this.gates[1]).abs().max() > 1e-3


def test_hard_setting_is_the_thresholded_gate(base):
    adapter = make_adapter(base, k=4, router=RouterConfig(threshold=0.5))
    with torch.no_grad(), attach(base) as attachment:
        _, soft = attachment.forward(request(adapter), **padded(tokens(6, 5, 4)))
        _, hard = attachment.forward(request(adapter, "hard"), **padded(tokens(6, 5, 4)))
    assert torch.equal(hard.gates, (soft.gates > 0.5).float())
    assert hard.gates.unique().tolist() == [0.0, 1.0]


def test_gates_outside_zero_to_one_scale_the_edit(base):
    adapter = make_adapter(base, positions="l1")
    inputs = padded(tokens(6))
    with torch.no_grad(), attach(base) as attachment:
        steps = []
        for dose in (-1.0, 1.0, 2.0):
            _, this = attachment.forward(request(adapter, [dose, 0.0], capture=(1,)), **inputs)
            before, after = this.states[1]
            steps.append((after - before)[0, -1])
    torch.testing.assert_close(steps[0], -steps[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(steps[2], 2 * steps[1], atol=1e-4, rtol=1e-4)
