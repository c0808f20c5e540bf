"""Which base a run belongs to: all weights, the description, the tokeniser and the template."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from csreft_core.base import fingerprint as base_identity
from csreft_core.base.fingerprint import old_rule
from csreft_core.base.load import load_base
from csreft_core.config import BaseConfig
from csreft_core.errors import AdapterError
from csreft_core.reft.adapter import load_adapter
from csreft_core.reft.base_record import check_base, differences, old_record
from csreft_core.runs.all_runs import example_runs
from tests.tiny import make_adapter, tiny_base


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def record(folder, **settings):
    return load_base(BaseConfig(path=str(folder), **settings)).fingerprint


def change_weights(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def change_json(folder, name, **changes):
    tree = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(tree | changes))


def differ(folder, copy):
    return differences(record(folder), record(copy))


ATTENTION = "model.layers.1.self_attn.q_proj.weight"


def merged_lora(tensors):
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(1, 32, generator=generator), torch.randn(32, 1, generator=generator)
    tensors[ATTENTION] += 1e-3 * b @ a


def one_number(tensors):
    tensors["model.layers.2.mlp.down_proj.weight"][3, 5] *= 1.01


def swapped_blocks(tensors):
    for name in [name for name in tensors if ".layers.0." in name]:
        other = name.replace(".0.", ".1.")
        tensors[name], tensors[other] = tensors[other], tensors[name]


def embedding(tensors):
    tensors["model.embed_tokens.weight"][3, 4] += 0.5


@pytest.mark.parametrize("change", [merged_lora, one_number, swapped_blocks, embedding])
def test_other_weights_are_another_base(folder, copy, change):
    change_weights(copy, change)
    assert differ(folder, copy) == ("weights",)
    adapter = make_adapter(load_base(BaseConfig(path=str(folder))))
    with pytest.raises(AdapterError, match="trained on a base with other weights than"):
        check_base(adapter.spec.base_fingerprint, record(copy), "copy")


def half(tensors, dtype=torch.bfloat16):
    for name, tensor in tensors.items():
        tensors[name] = tensor.to(dtype)


def stored_head(tensors):
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()


def left_over(tensors):
    tensors["model.layers.0.another.weight"] = torch.ones(4)


@pytest.mark.parametrize("change", [half, stored_head, left_over])
def test_the_same_weights_in_other_files_are_the_same_base(folder, copy, change):
    change_weights(copy, change)
    assert differ(folder, copy) == ()


def test_the_same_weights_in_several_files_and_in_memory(folder, copy, tiny_llama):
    (copy / "model.safetensors").unlink()
    tiny_llama.save_pretrained(copy, max_shard_size="30KB")
    assert not (copy / "model.safetensors").exists()
    assert record(folder) == record(copy) == tiny_base(tiny_llama).fingerprint


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_precision_that_is_asked_for_changes_nothing(folder, precision):
    assert differences(record(folder), record(folder, precision=precision)) == ()


def test_a_copy_in_float16_rounds_otherwise_and_says_so(folder, copy):
    change_weights(copy, lambda tensors: half(tensors, torch.float16))
    assert differ(folder, copy) == ("weights",)


def test_each_tensor_is_hashed_once(folder, monkeypatch):
    seen, digest = [], base_identity._digest
    monkeypatch.setattr(
        base_identity, "_digest", lambda tensor, *more: seen.append(1) or digest(tensor, *more)
    )
    record(folder)
    assert len(seen) == 3 * 9 + 2  # of each block, the embedding and the last norm


@pytest.mark.parametrize(
    "changes",
    [
        {"rms_norm_eps": 1e-3},
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
        {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 4},
        {"max_position_embeddings": 64},
    ],
    ids=str,
)
def test_other_values_in_the_description_are_another_base(folder, copy, changes):
    change_json(copy, "config.json", **changes)
    assert differ(folder, copy) == ("values in config.json",)


def test_what_the_description_says_of_the_file_does_not_matter(folder, copy):
    changes = {"transformers_version": "9", "dtype": "bfloat16", "use_cache": False}
    more = {"eos_token_id": [2, 1], "architectures": None, "initializer_range": 0.5}
    change_json(copy, "config.json", **changes, **more)
    assert differ(folder, copy) == ()
    tree = {"rope_theta": 10000, "a": [1e4, None], "b": None}
    same = {"rope_theta": 1e4, "a": [10000, None]}
    assert base_identity._plain(tree) == base_identity._plain(same)


def swapped_words(tree):
    words = tree["model"]["vocab"]
    words["w5"], words["w6"] = words["w6"], words["w5"]


def another_beginning(tree):
    one = {"Sequence": {"id": "A", "type_id": 0}}
    tree["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, one],
        "pair": [one, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [1], "tokens": ["<bos>"]}},
    }


@pytest.mark.parametrize("change", [swapped_words, another_beginning])
def test_another_tokeniser_in_the_folder_is_noticed(folder, copy, change):
    tree = json.loads((copy / "tokenizer.json").read_text())
    change(tree)
    (copy / "tokenizer.json").write_text(json.dumps(tree))
    assert differ(folder, copy) == ("tokens (its tokeniser)",)


def test_a_chat_template_matters_where_prompts_are_put_into_it(folder, copy):
    (copy / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert differ(folder, copy) == ("chat template",)
    assert differences(record(folder), record(copy), chat=False) == ()


def test_the_record_of_an_earlier_version_is_known_and_said_to_be_weak(folder, copy, tiny_llama):
    old, here = old_rule(tiny_llama), record(folder)
    assert differences(old, here) == differences(here, old) == differences(old, old) == ()
    change_weights(copy, merged_lora)
    assert differences(old, record(copy)) == ()
    assert "its embedding only" in old_record(old, "copy")
    change_weights(copy, embedding)
    assert "earlier version" in differences(old, record(copy))[0]
    assert old_record(here, "copy") == old_record(old, "pocket") == ""
    assert differences("made up", here) != ()


@pytest.mark.fast
def test_the_shipped_runs_are_of_the_shipped_base():
    here = load_base(BaseConfig()).fingerprint
    runs = example_runs()
    assert len(runs) > 5
    for run in runs:
        check_base(load_adapter(run.adapter_path).spec.base_fingerprint, here, "pocket")
        assert old_record(load_adapter(run.adapter_path).spec.base_fingerprint, "pocket") == ""


def test_a_model_that_was_loaded_by_hand_has_the_record_of_its_folder(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert differences(tiny_base(model).fingerprint, record(folder)) == ()
