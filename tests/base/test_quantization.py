"""Bases in 4 and 8 bits on the CPU: what is loaded, exact gradients, training, and what stays."""

import json

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from csreft_core.attachment.attach import attach
from csreft_core.base import quantization
from csreft_core.base.load import load_base
from csreft_core.config import BaseConfig, preset, with_overrides
from csreft_core.errors import UnsupportedModelError
from csreft_core.reft.adapter import load_adapter
from csreft_core.runs.all_runs import create_run
from csreft_core.skills.skill_set import Row, SkillSet
from csreft_core.training.loop import train
from tests.tiny import tiny_tokenizer

bnb = pytest.importorskip("bitsandbytes")


def saved(path, width, intermediate):
    """A random Llama of a width, saved as a folder."""
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=width,
        intermediate_size=intermediate,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module", params=[(256, 256), (688, 256)], ids=["256", "688"])
def folder(request, tmp_path_factory):
    return saved(tmp_path_factory.mktemp("base"), *request.param)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("base"), 64, 128)


def dequantised(model):
    """The same model with each 4-bit layer replaced by a plain one of the weights it stands for."""
    plain = LlamaForCausalLM(model.config).eval()
    weights = {}
    for name, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)
        whole = parameter.data
        if state is not None:
            whole = bnb.functional.dequantize_4bit(whole, state)
        weights[name] = whole.float()
    plain.load_state_dict(weights)
    return plain


def gradient(model, ids):
    """Of the loss, with respect to the embedded prompt: it has passed through every block."""
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    logits = model(inputs_embeds=embedded).logits.float()
    nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    return embedded.grad


@pytest.mark.parametrize("precision", ["nf4", "fp4"])
def test_gradients_after_an_evaluation_are_those_of_the_dequantised_base(folder, precision):
    base = load_base(BaseConfig(path=folder, precision=precision))
    layers = [m for m in base.model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert len(layers) == 2 * 7
    assert {layer.weight.quant_state.quant_type for layer in layers} == {precision}
    assert all(layer.weight.quant_state.nested for layer in layers)  # double quantisation
    ids = torch.randint(3, 95, (2, 12), generator=torch.Generator().manual_seed(0))
    base.model.eval()
    with torch.no_grad():
        base.model(ids)
    found, expected = gradient(base.model, ids), gradient(dequantised(base.model), ids)
    assert (found - expected).norm() <= 1e-3 * expected.norm()
    assert expected.norm() > 0


def test_asking_for_evaluation_does_not_reach_the_4_bit_layers(narrow):
    base = load_base(BaseConfig(path=narrow, precision="nf4"))
    with attach(base):
        base.model.eval()
        modes = {m.training for m in base.model.modules() if isinstance(m, bnb.nn.Linear4bit)}
        others = {m.training for m in base.model.modules() if isinstance(m, nn.Embedding)}
    assert (modes, others) == ({True}, {False})


@pytest.mark.parametrize("precision", ["nf4", "fp4", "int8"])
def test_it_is_the_same_base_in_fewer_bytes(narrow, precision):
    whole, small = (load_base(BaseConfig(path=narrow, precision=p)) for p in ("fp32", precision))
    assert small.fingerprint == whole.fingerprint
    assert small.n_parameters == whole.n_parameters
    assert small.model.get_memory_footprint() < 0.7 * whole.model.get_memory_footprint()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        difference = small.model(ids).logits - whole.model(ids).logits
        scale = whole.model(ids).logits.std()
    assert 0 < difference.std() < 0.5 * scale


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
def test_compute_is_what_the_config_says(narrow, compute):
    base = load_base(BaseConfig(path=narrow, precision="nf4", compute=compute))
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[compute]
    layer = next(m for m in base.model.modules() if isinstance(m, bnb.nn.Linear4bit))
    assert layer.compute_dtype == dtype
    assert base.model(torch.tensor([[5, 6]])).logits.dtype == dtype


def rows():
    train_rows = [
        Row((skill,), f"{word} w{n}", answer, split)
        for skill, word, answer in (("one", "w3", "w50"), ("two", "w4", "w60"))
        for n in range(10, 40)
        for split in (("train",) if n < 34 else ("validation", "test_items"))
    ]
    return SkillSet(tuple(train_rows), ("one", "two"))


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_training_in_few_bits(narrow, tmp_path, precision):
    check_training(narrow, tmp_path, precision)


def test_training_in_nf4_at_widths_with_and_without_a_fast_kernel(folder, tmp_path):
    check_training(folder, tmp_path, "nf4")


def check_training(path, tmp_path, precision):
    """20 steps with evaluations between: the loss falls, the base stays, the adapter reloads."""
    config = with_overrides(
        preset("recommended"),
        [
            f"base.path={path}",
            f"base.precision={precision}",
            "data.template={prompt}",
            "train.steps=20",
            "train.eval_every=10",
            "train.batch_size=8",
            "train.threads=1",
        ],
    )
    base = load_base(config.base)
    before = {name: p.data.clone() for name, p in base.model.named_parameters()}
    run = create_run(tmp_path / "run", config, rows())
    records = list(train(run, base))
    losses = [record["loss"] for record in records if record["kind"] == "step"]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert all(torch.equal(p, before[name]) for name, p in base.model.named_parameters())

    adapter, prompt = load_adapter(run.adapter_path), torch.tensor([[3, 12]])
    again = load_base(config.base)
    with attach(again, adapter), torch.no_grad():
        reloaded = again.model(prompt).logits
    with attach(base, adapter), torch.no_grad():
        assert torch.equal(base.model(prompt).logits, reloaded)
    with torch.no_grad():
        assert not torch.equal(base.model(prompt).logits, reloaded)
    assert json.loads(run.config_path.read_text())["base"]["precision"] == precision


def test_without_bitsandbytes_the_message_says_what_to_install(narrow, monkeypatch):
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)  # noqa: ARG005
    with pytest.raises(UnsupportedModelError, match="pip install bitsandbytes"):
        load_base(BaseConfig(path=narrow, precision="nf4"))
    assert load_base(BaseConfig(path=narrow)).n_layers == 2
