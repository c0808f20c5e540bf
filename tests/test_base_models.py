"""Loading a frozen base: what is found, what is refused, and that it is frozen."""

import json

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from csreft_core.base_models import find_blocks, fingerprint, freeze, load_base, resolve_device
from csreft_core.config import BaseConfig
from csreft_core.errors import UnsupportedModelError
from tests.tiny import tiny_base, tiny_tokenizer


@pytest.fixture
def folder(tiny_llama, tmp_path):
    path = tmp_path / "base"
    tiny_llama.save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def test_a_folder_that_transformers_saved(folder, tiny_llama):
    base = load_base(BaseConfig(path=str(folder)))
    assert (base.d_model, base.n_layers, base.pad_id) == (32, 3, 0)
    assert base.n_parameters == sum(p.numel() for p in tiny_llama.parameters())
    assert base.fingerprint == fingerprint(tiny_llama)
    assert not base.model.training
    assert not any(p.requires_grad for p in base.model.parameters())
    assert base.id == str(folder)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(base.model(ids).logits, tiny_llama(ids).logits)


def test_precision_is_what_the_config_says(folder):
    base = load_base(BaseConfig(path=str(folder), precision="bf16"))
    assert {p.dtype for p in base.model.parameters()} == {torch.bfloat16}


def test_fingerprint_is_of_the_weights_not_of_their_precision(folder, tiny_llama):
    one = load_base(BaseConfig(path=str(folder)))
    two = load_base(BaseConfig(path=str(folder), precision="bf16"))
    assert one.fingerprint == two.fingerprint
    with torch.no_grad():
        tiny_llama.get_input_embeddings().weight[3, 4] += 0.5
    assert fingerprint(tiny_llama) != one.fingerprint


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all"])
def test_missing_folder(path):
    with pytest.raises(UnsupportedModelError, match=r"no folder with a config\.json; give"):
        load_base(BaseConfig(path=path))


def test_folder_without_a_model(tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"no folder with a config\.json"):
        load_base(BaseConfig(path=str(tmp_path)))


def test_hub_id_that_cannot_be_reached():
    with pytest.raises(UnsupportedModelError, match=r"cannot be loaded: .*; give 'pocket'"):
        load_base(BaseConfig(path="nobody/nothing"))


def test_pickled_weights_are_refused(folder, tiny_llama):
    torch.save(tiny_llama.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnsupportedModelError, match="cannot be loaded"):
        load_base(BaseConfig(path=str(folder)))


def test_damaged_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UnsupportedModelError, match="cannot be loaded"):
        load_base(BaseConfig(path=str(folder)))


def test_weights_of_another_shape(folder):
    tree = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(tree | {"vocab_size": 97}))
    with pytest.raises(UnsupportedModelError, match="cannot be loaded"):
        load_base(BaseConfig(path=str(folder)))


def test_remote_code_is_refused(folder, tmp_path):
    tree = json.loads((folder / "config.json").read_text())
    tree |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (folder / "config.json").write_text(json.dumps(tree))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    with pytest.raises(UnsupportedModelError, match="cannot be loaded"):
        load_base(BaseConfig(path=str(folder)))
    assert not (tmp_path / "sprung").exists()


def test_encoder_decoder_is_refused(folder):
    tree = {"model_type": "t5", "is_encoder_decoder": True}
    (folder / "config.json").write_text(json.dumps(tree))
    with pytest.raises(UnsupportedModelError, match="is an encoder-decoder model"):
        load_base(BaseConfig(path=str(folder)))


def test_config_that_is_no_json(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(UnsupportedModelError, match="cannot be loaded"):
        load_base(BaseConfig(path=str(folder)))


def test_missing_tokenizer(folder):
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(UnsupportedModelError, match="cannot be loaded"):
        load_base(BaseConfig(path=str(folder)))


def test_blocks_that_cannot_be_found(tiny_llama):
    twin = nn.ModuleList([nn.Identity() for _ in range(3)])
    assert find_blocks(tiny_llama) is tiny_llama.model.layers
    tiny_llama.add_module("twin", twin)
    with pytest.raises(UnsupportedModelError, match=r"one list of 3 .*found model\.layers, twin"):
        find_blocks(tiny_llama)


def test_blocks_of_a_model_with_a_list_inside_each_block(tiny_llama):
    for block in tiny_llama.model.layers:
        block.experts = nn.ModuleList([nn.Identity() for _ in range(3)])
    assert find_blocks(tiny_llama) is tiny_llama.model.layers


def test_device_that_is_not_there():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(UnsupportedModelError, match="does not have it; use 'auto' or 'cpu'"):
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
