"""Which files hold a base's weights: nothing but safetensors of its own folder is read."""

import json
import pickle
import resource
import struct
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from csreft_core.base.load import load_base
from csreft_core.config import BaseConfig
from csreft_core.errors import UnsupportedModelError
from tests.tiny import tiny_tokenizer


@pytest.fixture
def folder(tiny_llama, tmp_path):
    path = tmp_path / "base"
    tiny_llama.save_pretrained(path, max_shard_size="30KB")
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def _quick_and_small():
    """What is refused is refused within 5 s of work and 1 GiB."""
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # in KiB


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def rename(folder, found, name):
    """The index names another file in place of one of its own."""
    path = folder / "model.safetensors.index.json"
    tree = json.loads(path.read_text())
    tree["weight_map"] = {k: name if v == found else v for k, v in tree["weight_map"].items()}
    path.write_text(json.dumps(tree))


def refused(folder, message):
    with pytest.raises(UnsupportedModelError, match=message):
        load_base(BaseConfig(path=str(folder)))


def shards(folder):
    return sorted(path.name for path in folder.glob("model-*.safetensors"))


def test_several_files_with_an_index_are_read(folder, tiny_llama):
    assert len(shards(folder)) > 2
    base = load_base(BaseConfig(path=str(folder)))
    for name, weight in tiny_llama.named_parameters():
        assert torch.equal(base.model.get_parameter(name), weight)


@pytest.mark.parametrize("suffix", ["bin", "pt", "safetensors.bin", "safetensors"])
def test_a_pickle_that_the_index_names_is_not_read(folder, tmp_path, suffix):
    trap = tmp_path / "sprung"
    (folder / f"weights.{suffix}").write_bytes(pickle.dumps(Trap(trap)))
    rename(folder, shards(folder)[0], f"weights.{suffix}")
    named = (
        "names 'weights.*never pickles" if suffix != "safetensors" else "weights cannot be loaded"
    )
    refused(folder, named)
    assert not trap.exists()
    pickle.loads((folder / f"weights.{suffix}").read_bytes()).close()
    assert trap.exists()


@pytest.mark.parametrize("where", ["../", "./", "/", "sub/", "..\\", "C:\\"])
def test_files_outside_the_folder_are_not_read(folder, where):
    first = shards(folder)[0]
    (folder / "sub").mkdir()
    for copy in (folder.parent / first, folder / "sub" / first):
        copy.write_bytes((folder / first).read_bytes())
    name = str(folder.parent / first) if where == "/" else where + first
    rename(folder, first, name)
    refused(folder, "only safetensors files in its own folder are read")


@pytest.mark.parametrize("name", [None, 3, [], {}, "", ".", "..", "\0"])
def test_names_that_are_none(folder, name):
    rename(folder, shards(folder)[0], name)
    refused(folder, "only safetensors files in its own|cannot be read")


def test_a_file_that_is_not_there(folder):
    rename(folder, shards(folder)[0], "gone.safetensors")
    refused(folder, "names 'gone.safetensors', which is not there; copy or fetch")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "[" * 100_000]
)
def test_an_index_that_is_none(folder, text):
    (folder / "model.safetensors.index.json").write_text(text)
    refused(folder, "index.json cannot be read")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:500],
        lambda _: b"",
        lambda content: struct.pack("<Q", 2**40) + content[8:],
        lambda _: _claiming({"data_offsets": [0, 2**40], "shape": [2**38], "dtype": "F32"}),
        lambda _: _claiming({"data_offsets": [0, 4], "shape": [2**38], "dtype": "F32"}),
        lambda _: _claiming({"data_offsets": [0, 4], "shape": [2**62, 2**62], "dtype": "F32"}),
    ],
    ids=["cut", "empty", "long header", "offsets", "shape", "overflow"],
)
def test_a_header_that_lies(folder, change):
    path = folder / shards(folder)[0]
    path.write_bytes(change(path.read_bytes()))
    refused(folder, f"weights cannot be loaded .*{path.name}")


def _claiming(tensor):
    header = json.dumps({"model.norm.weight": tensor}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


@pytest.mark.parametrize(
    "claims",
    [{"vocab_size": 10**9}, {"hidden_size": 2**30}, {"num_hidden_layers": 1900}],
    ids=str,
)
def test_a_description_that_asks_for_more_than_its_files_hold(folder, claims):
    tree = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(tree | claims))
    with pytest.raises(UnsupportedModelError, match=r"config\.json describes .* but its w"):
        load_base(BaseConfig(path=str(folder), check_memory=False))


def test_a_lora_beside_whole_weights_is_never_added_in_silence(folder, tiny_llama):
    wide = {"r": 4, "peft_type": "LORA", "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(wide))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    save_file(
        {name.format("A"): torch.ones(4, 32), name.format("B"): torch.ones(32, 4)},
        folder / "adapter_model.safetensors",
    )
    refused(folder, r"beside a LoRA.*take adapter_config\.json out.*merge_and_unload")
    (folder / "adapter_config.json").unlink()
    base = load_base(BaseConfig(path=str(folder)))  # what the message says
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(base.model(ids).logits, tiny_llama(ids).logits)
    (folder / "adapter_config.json").write_text(json.dumps(wide))
    (folder / "model.safetensors.index.json").unlink()
    refused(folder, "is a LoRA alone.*merge_and_unload")


def test_one_file_is_taken_before_an_index(folder):
    whole = {}
    for name in shards(folder):
        whole |= load_file(folder / name)
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../x.bin"}}')
    assert load_base(BaseConfig(path=str(folder))).n_layers == 3
