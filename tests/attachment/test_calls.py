"""Generation under an edit: cache, padding, beams and company change no answer, or are refused."""

import copy

import pytest
import torch
from torch.nn import functional as F
from transformers import DynamicCache, LogitsProcessorList

from csreft_core.attachment import attach as hooking
from csreft_core.attachment.attach import Request, attach, request
from csreft_core.attachment.calls import Generation
from csreft_core.base.library_calls import Prompts, cache_argument, read_call
from csreft_core.config import RouterConfig
from csreft_core.errors import ConfigError
from csreft_core.reft.subspaces import Subspaces
from tests.families import (
    SAME_LOGITS,
    Spy,
    build,
    generated,
    logits,
    step_logits,
    with_positions,
)
from tests.tiny import make_adapter, padded, tiny_base, tokens

pytestmark = pytest.mark.libraries


@pytest.fixture
def base(tiny_llama):
    return tiny_base(tiny_llama)


@with_positions("all", "all_prompt", "f2+l2", "l1")
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


@pytest.mark.parametrize(("positions", "runs", "steps"), [("f2+l2", 1, 0), ("all", 2, 4)])
def test_prompt_edits_leave_decoding_alone(base, monkeypatch, positions, runs, steps):
    """The first step of edits everywhere prepares those of the four that follow."""
    adapter = make_adapter(base, layers=(1,), positions=positions)
    spy, at_gates, prepared = Spy(adapter), Subspaces.at_gates, []

    def counted(self, gates, group=0):
        edit = at_gates(self, gates, group)
        return lambda h: prepared.append(len(h)) or edit(h)

    monkeypatch.setattr(Subspaces, "at_gates", counted)
    with attach(base, adapter):
        generated(base, padded(tokens(7, 5)))
    assert spy.calls == runs
    assert prepared == [2] * steps


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


def test_filled_cache_given_to_generate_is_refused(base):
    """Nobody knows how its prompt was edited; a fresh cache of one's own is no other than none."""
    row = tokens(6)[0][None]
    with torch.no_grad(), attach(base, make_adapter(base)):
        expected = generated(base, {"input_ids": row})
        cache = DynamicCache(config=base.model.config)
        given = {cache_argument(base.model): cache}
        own = generated(base, {"input_ids": row}, **given)
        assert torch.equal(own.sequences, expected.sequences)
        with pytest.raises(ConfigError, match="a key-value cache that holds 11 tokens already"):
            generated(base, {"input_ids": own.sequences}, **given)


def test_a_static_cache_is_refused(base):
    refused = pytest.raises(ConfigError, match="static caches")
    with attach(base, make_adapter(base)), refused:
        generated(base, padded(tokens(6)), cache_implementation="static")


def test_continuous_batching_is_refused(base):
    refused = pytest.raises(ConfigError, match="cannot serve by continuous batching")
    with attach(base, make_adapter(base)), refused:
        base.model.generate_batch([[5, 6, 7], [8, 9]], max_new_tokens=2)


def test_a_negative_prompt_is_refused(base):
    row, other = tokens(6)[0][None], tokens(5, seed=1)[0][None]
    refused = pytest.raises(ConfigError, match="rows that do not begin with the prompts")
    with attach(base, make_adapter(base)), refused:
        generated(base, {"input_ids": row}, guidance_scale=2.0, negative_prompt_ids=other)


@pytest.mark.parametrize("positions", ["all", "f2+l2"])
def test_drafts_change_no_answer(base, positions):
    """Several tokens a step, some of which are taken back: by copying, and by another model."""
    adapter, draft = make_adapter(base, positions=positions), copy.deepcopy(base.model)
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 5, 6, 7, 5, 6]])}
    with attach(base, adapter):
        expected = generated(base, inputs, n=8).sequences
        copied = generated(base, inputs, n=8, prompt_lookup_num_tokens=3)
        drafted = generated(base, inputs, n=8, assistant_model=draft)
    assert torch.equal(copied.sequences, expected)
    assert torch.equal(drafted.sequences, expected)
    assert not torch.equal(generated(base, inputs, n=8).sequences, expected)


def test_the_base_drafting_for_itself_is_refused(base):
    """Its drafts would begin with a part of the answer that is taken for the prompt."""
    refused = pytest.raises(ConfigError, match="a key-value cache that holds")
    with attach(base, make_adapter(base, positions="all")), refused:
        generated(base, padded(tokens(6)), n=8, assistant_model=base.model)


def greedy_loop(rows_of, use_cache):
    """A `custom_generate` that takes 3 tokens; `rows_of` says which rows go on after the first."""

    def loop(model, input_ids, **_settings):
        cache = DynamicCache(config=model.config) if use_cache else None
        for step in range(3):
            new = input_ids[:, -1:] if use_cache and step else input_ids
            mask = (input_ids != 0).long()
            places = (mask.cumsum(1) - 1).clamp(min=0)[:, -new.shape[1] :]
            more = {cache_argument(model): cache} if use_cache else {}
            out = model(new, attention_mask=mask, position_ids=places, use_cache=use_cache, **more)
            input_ids = torch.cat([input_ids, out.logits[:, -1].argmax(-1, keepdim=True)], 1)
            if step == 0:
                input_ids = input_ids[rows_of]
                if use_cache:
                    cache.batch_select_indices(rows_of)
        return input_ids

    return loop


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("positions", ["all", "f2+l2"])
def test_custom_loops_are_right_or_refused(base, positions, use_cache):
    """Rows that stay, move or end; a row on a cache cannot be told to be whose prompt's."""
    adapter, inputs = make_adapter(base, positions=positions), padded(tokens(6, 4))
    more = {"do_sample": False, "pad_token_id": 0}
    stay, swap, first = torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0])

    def run(rows_of, inputs=inputs):
        loop = greedy_loop(rows_of, use_cache)
        return base.model.generate(**inputs, **more, max_new_tokens=3, custom_generate=loop)

    with attach(base, adapter):
        expected = base.model.generate(**inputs, **more, max_new_tokens=3)
        alone = {name: value[:1] for name, value in inputs.items()}
        assert torch.equal(run(first, alone), expected[:1])
        assert torch.equal(run(torch.tensor([0, 0]), alone), expected[:1].expand(2, -1))
        if use_cache and positions == "all":
            for rows_of in (stay, swap, first):
                with pytest.raises(ConfigError, match="custom_generate may move the rows"):
                    run(rows_of)
            return
        assert torch.equal(run(stay), expected)
        if use_cache:  # the answer is not edited, so that rows may move
            assert torch.equal(run(swap), expected[swap])
            return
        for rows_of in (swap, first):
            with pytest.raises(ConfigError, match="rows that do not begin with the prompts"):
                run(rows_of)


def test_other_forwards_on_the_way_change_no_answer(base):
    """A processor that asks the same base, under another request and under none of its own."""
    adapter, other = make_adapter(base, positions="all"), make_adapter(base, seed=5)
    inputs = padded(tokens(6, 6))
    with torch.no_grad(), attach(base) as attachment:
        req = request(adapter)
        expected, _ = attachment.generate(req, **inputs, max_new_tokens=5, pad_token_id=0)
        asked = []

        def ask(ids, scores):
            asked.append(attachment.forward(Request(None), input_ids=ids[:1])[0])
            with attachment.calling(request(other)):
                asked.append(base.model(ids[1:]))
            asked.append(base.model(ids))  # goes on with the prompts, as a row of its own
            return scores

        found, _ = attachment.generate(
            req,
            **inputs,
            max_new_tokens=5,
            pad_token_id=0,
            logits_processor=LogitsProcessorList([ask]),
        )
        assert torch.equal(found, expected)
        whole, _ = attachment.forward(request(other), input_ids=found[1:, :-1])
        assert torch.equal(asked[-2].logits, whole.logits)


@pytest.mark.parametrize("n", [1, 3])
def test_a_step_whose_cache_is_lost_is_seen_by_counting(base, n):
    """One new token without a cache looks like a whole row; it may even be that of the prompt."""
    adapter, prompt = make_adapter(base), torch.full((2, n), 7)
    generation, req = Generation(Prompts(prompt, custom=False)), request(adapter)
    first = generation.new_pass(req, read_call({"input_ids": prompt, "use_cache": True}))
    assert first.prompt_length.tolist() == [n, n]
    lost = read_call({"input_ids": torch.full((2, 1), 7), "use_cache": True})
    with pytest.raises(ConfigError, match="do not begin with the prompts"):
        generation.new_pass(req, lost)
    grown = read_call({"input_ids": torch.full((2, n + 1), 7), "use_cache": False})
    assert generation.new_pass(req, grown).index[0].tolist() == list(range(n + 1))


def test_a_cache_that_disagrees_with_what_was_seen_is_refused(base):
    prompt = torch.full((1, 4), 7)
    generation, req = Generation(Prompts(prompt, custom=False)), request(make_adapter(base))
    generation.new_pass(req, read_call({"input_ids": prompt}))
    for length in (2, 6):
        cache = DynamicCache()
        cache.update(torch.zeros(1, 1, length, 8), torch.zeros(1, 1, length, 8), 0)
        call = read_call({"input_ids": prompt[:, :1], "past_key_values": cache})
        with pytest.raises(ConfigError, match=f"holds {length} tokens, but generate had a prompt"):
            generation.new_pass(req, call)


def test_rows_that_no_prompt_belongs_to_are_refused(base):
    prompts = torch.full((2, 4), 7)
    generation, req = Generation(Prompts(prompts, custom=False)), request(make_adapter(base))
    with pytest.raises(ConfigError, match="was given 2 prompts and runs the base on 3 rows"):
        generation.new_pass(req, read_call({"input_ids": torch.full((3, 4), 7)}))


def test_several_texts_in_a_row_are_refused(base):
    """One after the other they are right, each in a row of its own."""
    row = torch.cat(tokens(4, 3))[None]
    places = torch.tensor([[0, 1, 2, 3, 0, 1, 2]])
    with torch.no_grad(), attach(base, make_adapter(base)):
        for more in ({}, {"attention_mask": torch.ones_like(row)}, {"use_cache": False}):
            with pytest.raises(ConfigError, match="rows with several texts are not supported"):
                base.model(row, position_ids=places, **more)
        with pytest.raises(ConfigError, match="rows with several texts are not supported"):
            base.model.generate(row, position_ids=places, max_new_tokens=2, pad_token_id=0)


def test_four_dimensional_mask_is_refused(base):
    refused = pytest.raises(ConfigError, match="one value for each token")
    with attach(base, make_adapter(base)), refused:
        base.model(tokens(3)[0][None], attention_mask=torch.ones(1, 1, 3, 3))


@pytest.mark.parametrize("positions", ["all", "all_prompt"])
def test_steps_on_the_cache_share_one_pass(base, positions, monkeypatch):
    made = []
    true_pass = hooking.new_pass
    monkeypatch.setattr(
        hooking, "new_pass", lambda *args: made.append(true_pass(*args)) or made[-1]
    )
    inputs = padded(tokens(6, 4))
    with attach(base, make_adapter(base, positions=positions)):
        cached = generated(base, inputs, n=6)
        assert len(made) == 2  # the prompt, and all steps after it
        assert made[1].skip == (positions == "all_prompt")
        full = generated(base, inputs, n=6, use_cache=False)
        assert len(made) == 2 + 6
    assert torch.equal(cached.sequences, full.sequences)
