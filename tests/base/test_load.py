"""Loading a frozen base: what is found, what is refused, and that it is frozen."""

import gc
import json
from dataclasses import replace
from weakref import WeakSet

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
)
from transformers.utils import logging as transformers_logging

from csreft_core.attachment.attach import attach
from csreft_core.base import load as base_models
from csreft_core.base.blocks import find_blocks
from csreft_core.base.devices import resolve_device
from csreft_core.base.load import freeze, load_base
from csreft_core.config import BaseConfig, preset, with_overrides
from csreft_core.errors import NotEnoughMemoryError, UnsupportedModelError
from csreft_core.reft.adapter import build_adapter
from tests.tiny import move, tiny_base, tiny_tokenizer


@pytest.mark.fast
def test_a_folder_that_transformers_saved(folder, tiny_llama):
    base = load_base(BaseConfig(path=str(folder)))
    assert (base.d_model, base.n_layers, base.pad_id) == (32, 3, 0)
    assert base.n_parameters == sum(p.numel() for p in tiny_llama.parameters())
    assert base.fingerprint == tiny_base(tiny_llama).fingerprint
    assert not base.model.training
    assert not any(p.requires_grad for p in base.model.parameters())
    assert base.id == str(folder)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(base.model(ids).logits, tiny_llama(ids).logits)


@pytest.mark.fast
def test_precision_is_what_the_config_says(folder):
    base = load_base(BaseConfig(path=str(folder), precision="bf16"))
    assert {p.dtype for p in base.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all"])
def test_missing_folder(path):
    with pytest.raises(UnsupportedModelError, match=r"no folder with a config\.json; give"):
        load_base(BaseConfig(path=path))


def test_folder_without_a_model(tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"no folder with a config\.json"):
        load_base(BaseConfig(path=str(tmp_path)))


def test_hub_id_that_cannot_be_reached():
    with pytest.raises(
        UnsupportedModelError, match=r"the Hub cannot be reached; .*choose 'pocket'"
    ):
        load_base(BaseConfig(path="nobody/nothing"))


def test_damaged_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UnsupportedModelError, match="weights cannot be loaded"):
        load_base(BaseConfig(path=str(folder)))


def test_weights_of_another_shape(folder):
    tree = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(tree | {"vocab_size": 97}))
    with pytest.raises(UnsupportedModelError, match="weights cannot be loaded"):
        load_base(BaseConfig(path=str(folder)))


def test_remote_code_is_refused(folder, tmp_path):
    tree = json.loads((folder / "config.json").read_text())
    tree |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (folder / "config.json").write_text(json.dumps(tree))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    with pytest.raises(UnsupportedModelError, match="brings its own code"):
        load_base(BaseConfig(path=str(folder)))
    assert not (tmp_path / "sprung").exists()


def test_missing_tokenizer(folder):
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(UnsupportedModelError, match=r"its tokeniser cannot be loaded .*json"):
        load_base(BaseConfig(path=str(folder)))


def test_blocks_that_cannot_be_found(tiny_llama):
    twin = nn.ModuleList([nn.Identity() for _ in range(3)])
    assert find_blocks(tiny_llama) is tiny_llama.model.layers
    tiny_llama.model.add_module("twin", twin)
    with pytest.raises(UnsupportedModelError, match=r"one list of 3 .*found layers, twin"):
        find_blocks(tiny_llama)


def test_an_encoder_of_images_may_have_as_many_blocks(tiny_llama):
    tiny_llama.add_module("vision", nn.ModuleList([nn.Identity() for _ in range(3)]))
    assert find_blocks(tiny_llama) is tiny_llama.model.layers


def test_blocks_of_a_model_with_a_list_inside_each_block(tiny_llama):
    for block in tiny_llama.model.layers:
        block.experts = nn.ModuleList([nn.Identity() for _ in range(3)])
    assert find_blocks(tiny_llama) is tiny_llama.model.layers


def test_device_that_is_not_there():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(UnsupportedModelError, match=r"has .* GPU.*; use 'auto' or 'cpu'"):
        resolve_device("cuda:63")


def test_pad_token_falls_back_to_the_end_token(tiny_llama):
    base = tiny_base(tiny_llama)
    assert base.pad_id == 0
    base.tokenizer.pad_token = None
    assert base.pad_id == 2
    base.tokenizer.eos_token = None
    assert base.pad_id == 0


def test_shared_weights_are_counted_once():
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    )
    base = freeze(model, tiny_tokenizer(), base_id="gpt2")
    assert base.n_parameters == sum(p.numel() for p in model.transformer.parameters())
    assert (base.d_model, base.n_layers) == (32, 2)


def test_the_model_keeps_its_class(folder):
    assert isinstance(load_base(BaseConfig(path=str(folder))).model, LlamaForCausalLM)


def test_an_encoder_that_loads_as_a_decoder_is_found_by_what_it_does(tmp_path):
    sizes = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2}
    more = {"num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 64}
    for is_decoder in (True, False):
        config = BertConfig(**sizes, **more, is_decoder=is_decoder)
        BertLMHeadModel(config).save_pretrained(tmp_path)
        tiny_tokenizer().save_pretrained(tmp_path)
        if is_decoder:
            assert load_base(BaseConfig(path=str(tmp_path))).n_layers == 2
    with pytest.raises(UnsupportedModelError, match="is an encoder: its tokens see"):
        load_base(BaseConfig(path=str(tmp_path)))


def test_loading_says_how_far_it_is(folder):
    told = []
    load_base(BaseConfig(path=str(folder)), lambda *news: told.append(news))
    n_tensors = 3 * 9 + 2  # of each block, the embedding and the last norm; the head is shared
    loading = [(done, total) for phase, done, total in told if phase == "loading weights"]
    assert loading == [(done, n_tensors) for done in range(n_tensors + 1)]
    assert [*dict.fromkeys(phase for phase, _, _ in told)] == [
        "reading the description",
        "loading weights",
        "looking at the model",
    ]


@pytest.fixture
def made(monkeypatch):
    """The models that are made from here on, as long as they live."""
    models = WeakSet()
    make = LlamaForCausalLM.__init__

    def make_and_note(self, *args, **kwargs):
        make(self, *args, **kwargs)
        models.add(self)

    monkeypatch.setattr(LlamaForCausalLM, "__init__", make_and_note)
    return models


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, RuntimeError])
def test_loading_can_be_cancelled_and_begun_again(folder, made, error):
    def cancel(phase: str, done: int, _total: int) -> None:
        if phase == "loading weights" and done == 5:
            raise error("enough")

    hook = transformers_logging.set_tqdm_hook(None)
    with pytest.raises(error, match="enough"):
        load_base(BaseConfig(path=str(folder)), cancel)
    assert transformers_logging.set_tqdm_hook(hook) is None
    gc.collect()
    assert len(made) == 0
    base = load_base(BaseConfig(path=str(folder)))
    assert base.n_layers == 3
    assert len(made) == 1


def test_weights_that_need_more_than_is_free_are_refused(folder, tiny_llama, monkeypatch):
    config = BaseConfig(path=str(folder))
    size = 4 * sum(p.numel() for p in tiny_llama.parameters())
    monkeypatch.setattr(base_models, "free_bytes", lambda device: size // 2)  # noqa: ARG005
    with pytest.raises(NotEnoughMemoryError, match=r"needs about 0\.1 MB .* are free; .*nf4"):
        load_base(config)
    assert load_base(replace(config, check_memory=False)).n_layers == 3
    monkeypatch.setattr(base_models, "free_bytes", lambda device: 2 * size)  # noqa: ARG005
    assert load_base(config).n_layers == 3


def test_a_base_with_blocks_in_several_places(folder, monkeypatch):
    """Blocks on the CPU and on disk, as a map over several GPUs would spread them."""
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "lm_head": "cpu"}
    places |= {"model.rotary_emb": "cpu", "model.layers.0": "cpu", "model.layers.2": "disk"}
    places |= {"model.layers.1": "disk"}
    whole = load_base(BaseConfig(path=str(folder)))
    monkeypatch.setattr(base_models, "device_map", lambda config: places)  # noqa: ARG005
    spread = load_base(BaseConfig(path=str(folder)))
    assert {p.device.type for p in spread.blocks[1].parameters()} == {"meta"}  # on disk
    assert spread.fingerprint == whole.fingerprint
    config = with_overrides(preset("recommended"), ["adapter.layers=[0, 1]"])
    adapter = build_adapter(
        config, d_model=32, n_layers=3, skills=("a", "b"), base_fingerprint=whole.fingerprint
    )
    move(adapter, 1.0, 0)
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    logits = []
    for base in (whole, spread):
        with attach(base, adapter):
            logits.append(base.model(ids).logits)
    assert torch.equal(*logits)
    assert not torch.equal(logits[0], whole.model(ids).logits)
