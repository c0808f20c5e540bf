"""A base is tried on loading: what cannot run, be edited or be padded is refused in words."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from csreft_core.attachment.attach import attach
from csreft_core.attachment.passes import Request
from csreft_core.base.blocks import Form
from csreft_core.base.checks import conduct_of
from csreft_core.base.load import load_base
from csreft_core.config import BaseConfig
from csreft_core.errors import UnsupportedModelError
from tests.causal_classes import tiny_config, tiny_model
from tests.families import build
from tests.tiny import tiny_base, tiny_tokenizer, tokens


def of_type(model_type):
    return tiny_model(tiny_config(model_type))


def test_a_base_that_cannot_run_says_so_on_loading(tmp_path):
    settings = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = LlamaConfig(
        vocab_size=96, num_attention_heads=4, num_key_value_heads=16, head_dim=8, **settings
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"cannot run, not even .*\(RuntimeError: .*"):
        load_base(BaseConfig(path=str(tmp_path)))


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("xlm-roberta", "does not count the places of its tokens from 0"),
        ("rwkv", "cannot read prompts of different lengths together"),
        ("xlstm", "cannot read prompts of different lengths together"),
        ("bart", "cannot read prompts of different lengths together"),
        ("deepseek_v4", r"block 0 gives \(1, 5, 4, 32\)"),
        ("gemma3n_text", r"block 0 gives \(4, 1, 5, 32\)"),
        ("xlnet", r"block 0 gives \(5, 1, 32\)"),
        ("reformer", "block 0 gives None"),
        ("mllama", "runs its blocks in the order 0, 1, 2;"),
        ("git", "answers otherwise in generate"),
        ("gemma4_unified_assistant", "cannot run, not even without an adapter"),
    ],
)
def test_families_that_cannot_be_right_are_refused(model_type, message):
    with pytest.raises(UnsupportedModelError, match=message):
        tiny_base(of_type(model_type))


class _Changed(nn.Module):
    """A block of the tiny model that does something else with its states."""

    def __init__(self, block, change):
        super().__init__()
        self.block, self.change = block, change

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("block"), name)

    def forward(self, hidden, *args, **kwargs):
        return self.change(self.block(hidden, *args, **kwargs))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h + h.mean(0, keepdim=True), "another result beside other rows"),
        (lambda h: h + h.mean(1, keepdim=True), "is an encoder"),
        (lambda h: h + torch.rand(()), "another result each time"),
        (lambda h: h.detach(), "no gradient passes from its logits to its block 0"),
        (lambda h: h * float("nan"), r"gives no numbers \(nan\) in torch\.float32"),
        (lambda h: {"states": h}, "cannot run"),
    ],
)
def test_what_a_block_may_not_do(change, message):
    model = build("llama").requires_grad_(False)
    conduct_of(model, "as it is")
    model.model.layers[1] = _Changed(model.model.layers[1], change)
    with pytest.raises(UnsupportedModelError, match=message):
        conduct_of(model, "changed")


def test_a_block_that_takes_its_states_under_another_name_is_refused():
    model = build("llama").requires_grad_(False)
    block = model.model.layers[1]
    inner = block.forward
    block.forward = lambda states, **others: inner(states, **others)
    block.register_forward_pre_hook(
        lambda _block, args, others: ((), {**others, "states": args[0]}), with_kwargs=True
    )
    with pytest.raises(UnsupportedModelError, match="block 1 takes its states under another name"):
        conduct_of(model, "changed")


def test_the_form_of_what_blocks_give_is_seen():
    assert set(tiny_base(of_type("openai-gpt")).conduct.forms) == {Form(list, 1)}
    assert Form(tuple, 2) in tiny_base(of_type("bamba")).conduct.forms
    assert set(tiny_base(build("llama")).conduct.forms) == {Form(None)}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "mixtral", "gemma3"])
def test_rounding_refuses_no_base(family, dtype):
    tiny_base(build(family, dtype))


@torch.no_grad()
def test_a_base_that_drops_tokens_on_the_way_shows_the_states_of_all():
    base, row = tiny_base(of_type("gemma4_text")), tokens(6)[0][None]
    assert base.conduct.cuts_rows
    asked = Request(None, capture=(3,))
    with attach(base) as attachment:
        whole, this = attachment.forward(asked, input_ids=row, use_cache=False)
        last, that = attachment.forward(asked, input_ids=row, use_cache=False, logits_to_keep=2)
    assert torch.equal(this.states[3][0], that.states[3][0])
    assert torch.equal(last.logits, whole.logits[:, -2:])
