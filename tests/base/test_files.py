"""Where a base's files come from, and what is refused before any weight is read."""

import json
import shutil

import huggingface_hub.constants as hub_constants
import pytest
import torch

from csreft_core.base import files as base_files
from csreft_core.base import load as base_models
from csreft_core.base.files import base_folder, read_description
from csreft_core.base.load import load_base
from csreft_core.base.shapes import shape_of
from csreft_core.config import BaseConfig
from csreft_core.errors import NotEnoughMemoryError, UnsupportedModelError
from tests.base.small_hub import REPOSITORY, hub

HUB = BaseConfig(path=REPOSITORY, device="cpu")


@pytest.fixture
def connect(monkeypatch, tmp_path):
    """Send what goes to the Hub to an address, with an empty cache and no token."""
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def to(address: str) -> None:
        monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub_constants, "ENDPOINT", address)
        monkeypatch.setattr(
            hub_constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )

    return to


def described(folder, **changes):
    """The folder with another config.json; None takes a field away."""
    tree = json.loads((folder / "config.json").read_text()) | changes
    kept = {name: value for name, value in tree.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return BaseConfig(path=str(folder))


def test_a_hub_id_is_fetched_with_progress_and_loads(folder, connect, monkeypatch, tiny_llama):
    torch.save({}, folder / "pytorch_model.bin")
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    told = []
    with hub(folder) as (address, asked):
        connect(address)
        assert shape_of(HUB).n_layers == 3
        assert not any("model.safetensors" in path for path in asked)
        base = load_base(HUB, lambda *news: told.append(news))
    fetched = {path.rpartition("/")[2] for path in asked if "/resolve/" in path}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= fetched
    assert not fetched & {"pytorch_model.bin", "consolidated.safetensors"}
    done = [(done, total) for phase, done, total in told if phase == "fetching from the Hub"]
    assert done == sorted(done)
    assert done[-1][0] == done[-1][1] > (folder / "model.safetensors").stat().st_size
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(base.model(ids).logits, tiny_llama(ids).logits)
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    assert load_base(HUB).fingerprint == base.fingerprint  # from the cache


def test_fetching_can_be_cancelled(folder, connect):
    class Cancelled(Exception):
        pass

    def cancel(phase: str, done: int, _total: int) -> None:
        if phase == "fetching from the Hub" and done > 0:
            raise Cancelled

    with hub(folder) as (address, _):
        connect(address)
        with pytest.raises(Cancelled):
            load_base(HUB, cancel)
        assert load_base(HUB).n_layers == 3


def fetched_weights(asked):
    return any("/resolve/" in path and path.endswith(".safetensors") for path in asked)


def test_what_does_not_fit_is_refused_before_it_is_fetched(folder, connect, monkeypatch):
    disk = shutil.disk_usage(folder)._replace(free=1000)
    with hub(folder) as (address, asked):
        connect(address)
        with monkeypatch.context() as little:
            little.setattr(base_models, "free_bytes", lambda device: 1000)  # noqa: ARG005
            with pytest.raises(NotEnoughMemoryError, match=r"for its weights in fp32, .* are free"):
                load_base(HUB)
        with monkeypatch.context() as full:
            full.setattr(base_files.shutil, "disk_usage", lambda path: disk)  # noqa: ARG005
            with pytest.raises(UnsupportedModelError, match=r"the disk of .* or set HF_HUB_CACHE"):
                load_base(HUB)
        assert not fetched_weights(asked)
        assert load_base(HUB).n_layers == 3
        assert fetched_weights(asked)


def test_a_hub_id_with_pickled_weights_alone_is_refused_before_it_is_fetched(folder, connect):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with hub(folder) as (address, asked):
        connect(address)
        with pytest.raises(UnsupportedModelError, match="no weights of it in safetensors; pickled"):
            load_base(HUB)
    assert not any(path.endswith((".bin", "tokenizer.json")) for path in asked)


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ((403, "GatedRepo"), "is gated: .*accept the terms, then log in here with `hf auth login`"),
        ((401, "RepoNotFound"), "no such repository, or it is private and no token"),
        ((401, ""), "no such repository, or it is private and no token"),
        ((404, "RepoNotFound"), "no such repository, or it is private and no token"),
        ((404, "RevisionNotFound"), "has no revision None"),
        ((503, ""), "is not on this machine and the Hub cannot be reached|the Hub answered 503"),
    ],
)
def test_what_the_hub_refuses_has_its_message(folder, connect, refusal, message):
    with hub(folder, refusal) as (address, asked):
        connect(address)
        with pytest.raises(UnsupportedModelError, match=message):
            load_base(HUB)
    assert asked


def test_without_a_network(connect):
    message = "is not on this machine and the Hub cannot be reached; connect to the network"
    with pytest.raises(UnsupportedModelError, match=message):
        load_base(HUB)
    connect("http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(UnsupportedModelError, match=message):
        load_base(HUB)


@pytest.mark.parametrize("path", ["nobody/nothing/more", "two words", "a--b"])
def test_neither_a_folder_nor_a_hub_id(path):
    with pytest.raises(UnsupportedModelError, match="neither a folder nor a Hub id"):
        load_base(BaseConfig(path=path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mine"}, "unknown architecture 'mine'; transformers [0-9.]+ does not know"),
        ({"model_type": None}, "unknown architecture None"),
        (
            {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}},
            r"brings its own code \(auto_map\), which is never run",
        ),
        ({"model_type": "t5", "is_encoder_decoder": True}, "is an encoder-decoder model"),
        (
            {"model_type": "bert", "architectures": ["BertForMaskedLM"]},
            "is no causal language model but BertForMaskedLM, such as an encoder",
        ),
        ({"model_type": "vit", "architectures": None}, "is no causal language model but vit"),
        (
            {"architectures": ["LlamaForSequenceClassification"]},
            "is no causal language model but LlamaForSequenceClassification",
        ),
        ({"quantization_config": {"quant_method": "gptq"}}, r"is quantised already \(gptq\)"),
        ({"hidden_size": "wide"}, "does not describe a llama model"),
        ({"num_hidden_layers": 10**6}, "1000000 blocks, at most 2000 can be"),
        ({"transformers_weights": "../x.safetensors"}, "names a file of weights by itself"),
    ],
)
def test_descriptions_that_are_refused(folder, changes, message):
    config = described(folder, **changes)
    with pytest.raises(UnsupportedModelError, match=message):
        load_base(config)
    with pytest.raises(UnsupportedModelError, match=message):
        shape_of(config)


@pytest.mark.parametrize("architectures", [None, ["LlamaModel"], ["LlamaForCausalLM"]])
def test_descriptions_that_are_taken(folder, architectures):
    config = described(folder, architectures=architectures)
    assert read_description(config, base_folder(config)).model_type == "llama"


@pytest.mark.parametrize("text", ["{", "[]", "nothing", "[" * 100_000, '{"a":' * 100_000])
def test_a_description_that_is_no_json(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(UnsupportedModelError, match=r"config\.json cannot be read"):
        load_base(BaseConfig(path=str(folder)))


def test_weights_that_are_missing_or_pickled(folder):
    config = BaseConfig(path=str(folder))
    assert load_base(config).n_layers == 3
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnsupportedModelError, match="no weights in safetensors"):
        load_base(config)
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UnsupportedModelError, match="only pickled weights, which are never read"):
        load_base(config)
