"""Generation under an edit: cache, padding, beams and company change no answer."""

import pytest
import torch
from torch.nn import functional as F

from csreft_core import hooking
from csreft_core.config import RouterConfig
from csreft_core.errors import ConfigError
from csreft_core.hooking import attach, request
from csreft_core.subspaces import Subspaces
from tests.families import ALL_FAMILIES, SAME_LOGITS, Spy, build, generated, logits, step_logits
from tests.tiny import make_adapter, padded, tiny_base, tokens


@pytest.fixture
def base(tiny_llama):
    return tiny_base(tiny_llama)


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
