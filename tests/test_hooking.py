"""Hooks: the edit is at the right tokens of every family, and nothing else changes."""

import threading
from contextvars import copy_context

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedModel,
    Qwen2Config,
    TextIteratorStreamer,
)

from csreft_core.config import RouterConfig
from csreft_core.errors import ConfigError
from csreft_core.hooking import Request, attach, request
from tests.tiny import make_adapter, padded, tiny_base, tokens

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA_LIKE = {
    **SIZES,
    "intermediate_size": 64,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
FAMILIES = {
    "llama": (LlamaConfig, LLAMA_LIKE),
    "qwen2": (Qwen2Config, LLAMA_LIKE),
    "mistral": (MistralConfig, LLAMA_LIKE),
    "gemma2": (Gemma2Config, {**LLAMA_LIKE, "head_dim": 8}),
    "neox": (GPTNeoXConfig, {**SIZES, "intermediate_size": 64, "max_position_embeddings": 64}),
    "opt": (
        OPTConfig,
        {**SIZES, "ffn_dim": 64, "max_position_embeddings": 64, "word_embed_proj_dim": 32},
    ),
    "gpt2": (
        GPT2Config,
        {
            "vocab_size": 96,
            "n_embd": 32,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 64,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
    ),
}
ALL_FAMILIES = pytest.mark.parametrize("family", FAMILIES)
# Same numbers in another order of batch or cache; float32 over three blocks.
SAME_LOGITS = 1e-4


def build(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    config_class, settings = FAMILIES[family]
    config = config_class(**settings, initializer_range=0.1, attn_implementation="eager")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).to(dtype).eval()


@pytest.fixture
def base(tiny_llama):
    return tiny_base(tiny_llama)


@torch.no_grad()
def logits(base, inputs, **more) -> torch.Tensor:
    return base.model(**inputs, **more).logits


def edited(base, adapter, inputs, gates="learned", **more) -> torch.Tensor:
    with attach(base, adapter, gates):
        return logits(base, inputs, **more)


class Spy(nn.Module):
    """Counts how often the edit runs; the edit itself is the real one."""

    def __init__(self, adapter):
        super().__init__()
        self.calls, self.sites = 0, 0
        for layer in adapter.layers:
            adapter.at(layer).register_forward_hook(self._count)

    def _count(self, _module, args, _output):
        self.calls += 1
        self.sites += len(args[0])


# --- gates off -------------------------------------------------------------------------------


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
        hidden, kept = self.inner(*args, **kwargs)
        assert kept == "kept"
        return hidden


def test_blocks_that_return_tuples_are_edited_alike(base):
    inputs, adapter = padded(tokens(6, 3)), make_adapter(base, layers=(0, 2))
    expected = edited(base, adapter, inputs)
    model = base.model
    tuples = nn.ModuleList([_TupleBlock(block) for block in model.model.layers])
    wrapped = nn.ModuleList([_Unpacked(block) for block in tuples])
    model.model.layers = wrapped
    from dataclasses import replace

    ours = replace(base, blocks=tuples)
    assert torch.equal(edited(ours, adapter, inputs), expected)
    assert not torch.equal(logits(ours, inputs), expected)


@pytest.mark.parametrize("positions", ["all", "all_prompt", "f2", "l1", "f2+l2"])
@ALL_FAMILIES
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


# --- generation ------------------------------------------------------------------------------


@torch.no_grad()
def generated(base, inputs, n=6, **kwargs):
    more = {"do_sample": False, "max_new_tokens": n, "min_new_tokens": n, "pad_token_id": 0}
    return base.model.generate(
        **inputs, **{**more, **kwargs}, output_logits=True, return_dict_in_generate=True
    )


def step_logits(out) -> torch.Tensor:
    return torch.stack(out.logits, 1)


@pytest.mark.parametrize("positions", ["all", "all_prompt", "f2+l2", "l1"])
@ALL_FAMILIES
def test_cache_padding_and_company_change_no_answer(family, positions):
    base = tiny_base(build(family))
    adapter = make_adapter(base, layers=(0, 1), positions=positions)
    rows = tokens(7, 4, 1)
    with attach(base, adapter):
        together = generated(base, padded(rows))
        uncached = generated(base, padded(rows), use_cache=False)
        assert torch.equal(together.sequences, uncached.sequences)
        assert (step_logits(together) - step_logits(uncached)).abs().max() <= SAME_LOGITS
        for i, row in enumerate(rows):
            alone = generated(base, padded([row]))
            assert torch.equal(alone.sequences[0, len(row) :], together.sequences[i, 7:])
            assert (step_logits(alone)[0] - step_logits(together)[i]).abs().max() <= SAME_LOGITS
    bare = generated(base, padded(rows))
    assert (step_logits(bare) - step_logits(together)).abs().max() > 1e-2


@pytest.mark.parametrize("granularity", ["per_prompt", "per_token"])
@pytest.mark.parametrize("positions", ["all", "all_prompt", "f2+l2", "l1"])
def test_generation_is_the_full_forward(base, positions, granularity):
    """Each step's logits against one forward over prompt and answer, told which is the prompt."""
    adapter = make_adapter(
        base, layers=(0, 1), positions=positions, router=RouterConfig(granularity=granularity)
    )
    rows = tokens(7, 4, 1)
    inputs = padded(rows)
    with attach(base, adapter):
        for use_cache in (True, False):
            out = generated(base, inputs, use_cache=use_cache)
            mask = F.pad(inputs["attention_mask"], (0, 6), value=1)
            prompt = F.pad(inputs["attention_mask"], (0, 6), value=0)
            full = logits(
                base,
                {"input_ids": out.sequences, "attention_mask": mask},
                prompt_mask=prompt,
            )
            assert (full[:, 6:-1] - step_logits(out)).abs().max() <= SAME_LOGITS
            unmasked = logits(base, {"input_ids": out.sequences, "attention_mask": mask})
            assert (unmasked[:, 6:-1] - step_logits(out)).abs().max() > 1e-3


@pytest.mark.parametrize(("positions", "runs"), [("f2+l2", 1), ("all", 6)])
def test_prompt_edits_leave_decoding_alone(base, positions, runs):
    adapter = make_adapter(base, layers=(1,), positions=positions)
    spy = Spy(adapter)
    with attach(base, adapter):
        generated(base, padded(tokens(7, 5)))
    assert spy.calls == runs


def test_beams_and_samples_of_a_prompt_share_its_gates(base):
    adapter = make_adapter(base, positions="all")
    rows = tokens(7, 4)
    with torch.no_grad(), attach(base, adapter):
        more = {"do_sample": False, "max_new_tokens": 5, "num_beams": 3, "pad_token_id": 0}
        together = base.model.generate(**padded(rows), **more, num_return_sequences=2)
        for i, row in enumerate(rows):
            alone = base.model.generate(**padded([row]), **more, num_return_sequences=2)
            ours = together[2 * i : 2 * i + 2, 7:]
            width = min(ours.shape[1], alone.shape[1] - len(row))
            assert torch.equal(ours[:, :width], alone[:, len(row) :][:, :width])
        torch.manual_seed(0)
        samples = base.model.generate(
            **padded(rows), do_sample=True, num_return_sequences=3, max_new_tokens=4, pad_token_id=0
        )
        assert samples.shape[0] == 6


def test_given_gates_of_two_prompts_go_to_their_own_beams(base):
    """Oracle labels are one row a prompt; the batch of a beam search is three times as long."""
    adapter, rows = make_adapter(base, positions="all"), tokens(6, 6)
    more = {"do_sample": False, "max_new_tokens": 4, "num_beams": 3, "pad_token_id": 0}
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    with torch.no_grad(), attach(base) as attachment:
        together, _ = attachment.generate(
            request(adapter, "oracle", labels), **padded(rows), **more
        )
        for i in (0, 1):
            req = request(adapter, "oracle", labels[i : i + 1])
            alone, _ = attachment.generate(req, **padded(rows[i : i + 1]), **more)
            assert torch.equal(alone[0, 6:], together[i, 6 : alone.shape[1]])
        swapped, _ = attachment.generate(
            request(adapter, "oracle", labels.flip(0)), **padded(rows), **more
        )
    assert not torch.equal(swapped, together)


def test_gates_for_another_number_of_prompts_are_an_error(base):
    adapter = make_adapter(base)
    with torch.no_grad(), attach(base) as attachment:
        req = request(adapter, "oracle", torch.eye(2))
        with pytest.raises(ConfigError, match="gates are given for 2 prompts, the batch has 3"):
            attachment.forward(req, **padded(tokens(4, 4, 4)))


def test_generate_takes_its_inputs_by_any_name(base):
    adapter, row = make_adapter(base), tokens(6)[0][None]
    with torch.no_grad(), attach(base, adapter):
        more = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
        one = base.model.generate(row, **more)
        two = base.model.generate(inputs=row, **more)
        three = base.model.generate(input_ids=row, **more)
        vectors = base.model.get_input_embeddings()(row)
        four = base.model.generate(inputs_embeds=vectors, **more)
    assert torch.equal(one, two)
    assert torch.equal(one, three)
    assert torch.equal(one[:, 6:], four)


def test_chunked_prefill_is_refused(base):
    refused = pytest.raises(ConfigError, match="leave prefill_chunk_size unset")
    with attach(base, make_adapter(base)), refused:
        base.model.generate(**padded(tokens(8)), max_new_tokens=2, prefill_chunk_size=3)


def test_filled_cache_outside_generate_is_refused(base):
    row = tokens(6)[0][None]
    with torch.no_grad(), attach(base, make_adapter(base)):
        cache = base.model(row[:, :3], use_cache=True).past_key_values
        with pytest.raises(ConfigError, match="does not see its prompt"):
            base.model(row[:, 3:], past_key_values=cache)


def test_four_dimensional_mask_is_refused(base):
    refused = pytest.raises(ConfigError, match="one value for each token")
    with attach(base, make_adapter(base)), refused:
        base.model(tokens(3)[0][None], attention_mask=torch.ones(1, 1, 3, 3))


# --- attach, detach --------------------------------------------------------------------------


def hooks_of(model) -> dict[str, int]:
    return {
        name: len(m._forward_hooks) + len(m._forward_pre_hooks) for name, m in model.named_modules()
    }


def test_detach_restores_the_base(base):
    inputs, adapter = padded(tokens(6, 4)), make_adapter(base)
    hooks, bare, attributes = hooks_of(base.model), logits(base, inputs), set(vars(base.model))
    attachment = attach(base, adapter)
    assert hooks_of(base.model) != hooks
    assert not torch.equal(logits(base, inputs), bare)
    generated(base, inputs)
    attachment.detach()
    attachment.detach()
    assert hooks_of(base.model) == hooks
    assert set(vars(base.model)) == attributes
    assert torch.equal(logits(base, inputs), bare)


def test_detach_after_an_exception(base):
    hooks = hooks_of(base.model)
    with pytest.raises(ZeroDivisionError), attach(base, make_adapter(base)):
        raise ZeroDivisionError
    assert hooks_of(base.model) == hooks


def test_a_failed_forward_leaves_no_pass_behind(base):
    adapter, inputs = make_adapter(base), padded(tokens(6, 4))
    expected = edited(base, adapter, inputs)
    with torch.no_grad(), attach(base, adapter) as attachment:
        with pytest.raises(IndexError):
            base.model(torch.tensor([[500]]))
        with pytest.raises(IndexError):
            base.model.generate(torch.tensor([[500]]), max_new_tokens=2)
        assert attachment._pass.get(None) is None
        assert torch.equal(logits(base, inputs), expected)


def test_other_peoples_hooks_survive(base):
    seen = []
    handles = [
        base.blocks[1].register_forward_hook(lambda *_: seen.append("block")),
        base.model.register_forward_pre_hook(lambda *_: seen.append("model")),
    ]
    with attach(base, make_adapter(base)):
        generated(base, padded(tokens(5)), n=2)
        assert seen.count("block") == seen.count("model") == 2
    seen.clear()
    logits(base, padded(tokens(5)))
    assert seen == ["model", "block"]
    for handle in handles:
        handle.remove()


def test_two_attachments_to_different_bases(base):
    other = tiny_base(build("gpt2"))
    one, two = make_adapter(base), make_adapter(other)
    inputs = padded(tokens(6))
    expected = edited(base, one, inputs), edited(other, two, inputs)
    with attach(base, one), attach(other, two):
        assert torch.equal(logits(base, inputs), expected[0])
        assert torch.equal(logits(other, inputs), expected[1])


def test_attaching_a_second_time_gives_the_same(base):
    adapter, inputs = make_adapter(base), padded(tokens(6))
    assert torch.equal(edited(base, adapter, inputs), edited(base, adapter, inputs))


def test_eval_and_train_of_the_model_reach_the_adapter(base):
    adapter = make_adapter(base, dropout=0.5)
    with attach(base, adapter):
        base.model.train()
        assert adapter.training
        assert adapter.at(1).training
        assert base.model.model.training
        base.model.eval()
        assert not adapter.at(1).training
    base.model.train()
    assert not adapter.training
    base.model.eval()


def test_embedding_may_be_called_on_its_own(base):
    with attach(base, make_adapter(base)):
        base.model.get_input_embeddings()(torch.tensor([[4, 5]]))


def test_learned_gates_without_a_router_are_an_error(base):
    adapter = make_adapter(base, router=RouterConfig(gates="oracle"))
    with attach(base, adapter), pytest.raises(ConfigError, match="has no router"):
        logits(base, padded(tokens(5)))


def test_learned_means_uniform_for_an_adapter_trained_so(base):
    adapter = make_adapter(base, router=RouterConfig(gates="uniform"))
    inputs = padded(tokens(5))
    uniform = edited(base, adapter, inputs, "uniform")
    assert torch.equal(edited(base, adapter, inputs), uniform)


# --- threads ---------------------------------------------------------------------------------


def in_thread(work):
    """Run it in a plain thread; give its result or raise its error here."""
    kept = {}

    def body():
        try:
            kept["result"] = work()
        except Exception as error:  # noqa: BLE001 - raised again below
            kept["error"] = error

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if "error" in kept:
        raise kept["error"]
    return kept["result"]


def test_a_thread_without_context_raises_instead_of_giving_the_base(base):
    adapter, inputs = make_adapter(base), padded(tokens(6))
    with attach(base) as attachment, attachment.calling(request(adapter)):
        expected = logits(base, inputs)
        with pytest.raises(RuntimeError, match="start threads through contextvars"):
            in_thread(lambda: logits(base, inputs))
        context = copy_context()
        assert torch.equal(in_thread(lambda: context.run(logits, base, inputs)), expected)


def test_streaming_in_a_plain_thread(base):
    adapter, inputs = make_adapter(base), padded(tokens(6))
    with attach(base, adapter):
        whole = generated(base, inputs, n=5).sequences[0, 6:]
        streamer = TextIteratorStreamer(base.tokenizer, skip_prompt=True)
        more = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
        thread = threading.Thread(
            target=base.model.generate, kwargs={**inputs, **more, "streamer": streamer}
        )
        thread.start()
        text = "".join(streamer)
        thread.join()
    assert text == base.tokenizer.decode(whole)
    assert text != base.tokenizer.decode(generated(base, inputs, n=5).sequences[0, 6:])


# --- training --------------------------------------------------------------------------------


def task_loss(base, inputs) -> torch.Tensor:
    out = base.model(**inputs).logits
    return F.cross_entropy(out[:, :-1].flatten(0, 1), inputs["input_ids"][:, 1:].flatten())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("form", "constraint"),
    [
        ("loreft", "joint"),
        ("loreft", "sequential"),
        ("loreft", "fixed"),
        ("direft", "within"),
        ("noreft", "none"),
        ("consreft", "joint"),
        ("lobireft", "penalty"),
    ],
)
def test_task_loss_reaches_everything_after_the_first_step(base, form, constraint, tied):
    init = "random" if form == "consreft" else "identity"
    adapter = make_adapter(
        base,
        k=3,
        layers=(0, 1),
        form=form,
        constraint=constraint,
        positions="f2+l2",
        tied=tied,
        init=init,
        moved=0.0,
    )
    optimizer = torch.optim.SGD([p for p in adapter.parameters() if p.requires_grad], lr=1.0)
    inputs = padded(tokens(6, 6, 6))
    with attach(base, adapter.train()):
        for _ in range(2):
            optimizer.zero_grad()
            task_loss(base, inputs).backward()
            optimizer.step()
    for name, parameter in adapter.named_parameters():
        if parameter.requires_grad:
            # Each subspace of each group on its own, not only some part of the stack.
            parts = parameter.grad.flatten(0, 1) if "subspaces" in name else parameter.grad[None]
            assert all(part.abs().max() > 0 for part in parts), name


@pytest.mark.parametrize("form", ["loreft", "noreft"])
def test_router_is_reached_from_the_second_step_on(base, form):
    constraint = "none" if form == "noreft" else "joint"
    settings = {"form": form, "constraint": constraint, "positions": "all_prompt"}
    adapter = make_adapter(base, k=3, moved=0.0, **settings).train()
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
    inputs = padded(tokens(6, 6, 6))
    with attach(base, adapter):
        task_loss(base, inputs).backward()
        assert all(p.grad.abs().max() == 0 for p in adapter.router.parameters())
        assert adapter.at(1).W.grad.abs().max() > 0
        optimizer.step()
        optimizer.zero_grad()
        task_loss(base, inputs).backward()
    assert all(p.grad.abs().max() > 0 for p in adapter.router.parameters())


class _Checkpointed(nn.Module):
    """Recomputes a block with its hooks, as Hub code and older models do."""

    def __init__(self, block, use_reentrant):
        super().__init__()
        self.block, self.use_reentrant = block, use_reentrant
        self.attention_type = getattr(block, "attention_type", None)

    def forward(self, hidden, **kwargs):
        if not self.training:
            return self.block(hidden, **kwargs)
        return checkpoint(self.block, hidden, use_reentrant=self.use_reentrant, **kwargs)


def checkpoint_as_transformers(base, use_reentrant):
    kwargs = {"use_reentrant": use_reentrant}
    base.model.activation_checkpointing_enable(activation_checkpointing_kwargs=kwargs)


def checkpoint_with_hooks(base, use_reentrant):
    base.model.enable_input_require_grads()
    wrapped = [_Checkpointed(block, use_reentrant) for block in base.blocks]
    base.model.model.layers = nn.ModuleList(wrapped)


# A router inside a block that is recomputed with its hooks is refused by torch itself.
@pytest.mark.parametrize(
    ("enable", "use_reentrant", "dropout", "layer"),
    [
        (checkpoint_as_transformers, False, 0.3, -1),
        (checkpoint_as_transformers, False, 0.0, 0),
        (checkpoint_as_transformers, True, 0.3, -1),
        (checkpoint_as_transformers, True, 0.0, 0),
        (checkpoint_with_hooks, False, 0.0, -1),
        (checkpoint_with_hooks, False, 0.3, -1),
    ],
)
def test_gradient_checkpointing_gives_the_same_gradients(
    base, enable, use_reentrant, dropout, layer
):
    settings = {"layers": (0, 1), "positions": "f2+l2", "dropout": dropout}
    adapter = make_adapter(base, router=RouterConfig(layer=layer), **settings).train()
    inputs, runs, gradients = padded(tokens(6, 6)), [0], []
    base.blocks[1].mlp.register_forward_pre_hook(lambda *_: runs.__setitem__(-1, runs[-1] + 1))
    with attach(base, adapter):
        for checkpointing in (False, True):
            if checkpointing:
                enable(base, use_reentrant)
                runs.append(0)
            base.model.train()
            adapter.zero_grad()
            task_loss(base, inputs).backward()
            gradients.append([p.grad.clone() for p in adapter.parameters()])
    assert runs == [1, 2]
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, atol=1e-7, rtol=1e-5)
        assert one.abs().max() > 0


def test_backward_after_a_second_forward_uses_the_first_ones_gates(base):
    adapter = make_adapter(base).train()
    one, two = padded(tokens(6)), padded(tokens(5, seed=4))
    with attach(base, adapter):
        task_loss(base, one).backward()
        expected = adapter.at(1).W.grad.clone()
        adapter.zero_grad()
        loss = task_loss(base, one)
        task_loss(base, two)
        loss.backward()
    torch.testing.assert_close(adapter.at(1).W.grad, expected)
