"""The listed bases have the shapes that were published."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from csreft_core.base.known import architecture
from csreft_core.base.load import find_blocks
from csreft_core.config import ASSETS, known_bases

# Parameters as the Hub and the model cards give them, a shared embedding counted once; blocks.
PUBLISHED = {
    "openai-community/gpt2": (124_439_808, 12),
    "HuggingFaceTB/SmolLM2-135M": (134_515_008, 30),
    "HuggingFaceTB/SmolLM2-360M": (361_821_120, 32),
    "Qwen/Qwen2.5-0.5B": (494_032_768, 24),
    "Qwen/Qwen3-0.6B": (596_049_920, 28),
    "google/gemma-3-1b-pt": (999_885_952, 26),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": (1_100_048_384, 22),
    "meta-llama/Llama-3.2-1B": (1_235_814_400, 16),
    "Qwen/Qwen2.5-1.5B": (1_543_714_304, 28),
    "HuggingFaceTB/SmolLM2-1.7B": (1_711_376_384, 24),
    "Qwen/Qwen3-1.7B": (1_720_574_976, 28),
    "google/gemma-2-2b": (2_614_341_888, 26),
    "meta-llama/Llama-2-7b-hf": (6_738_415_616, 32),
    "meta-llama/Llama-3.1-8B": (8_030_261_248, 32),
}


def test_the_list_holds_the_shipped_base_and_then_the_others_by_size():
    assert list(known_bases()) == ["pocket", "smollm2", *PUBLISHED]
    sizes = [parameters for parameters, _ in PUBLISHED.values()]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("path", PUBLISHED)
def test_a_shape_has_the_published_number_of_parameters_and_blocks(path):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(architecture(known_bases()[path]))
    parameters, blocks = PUBLISHED[path]
    assert model.num_parameters() == parameters
    assert len(find_blocks(model)) == blocks


def test_the_shape_of_the_shipped_base_is_that_of_its_weights():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(architecture(known_bases()["pocket"]))
    weights = load_file(ASSETS / "pocket" / "model.safetensors")
    assert model.num_parameters() == sum(weight.numel() for weight in weights.values())


def test_gated_bases_are_those_whose_licence_must_be_accepted():
    gated = {path for path, preset in known_bases().items() if preset.gated}
    assert gated == {path for path in PUBLISHED if path.startswith(("meta-llama/", "google/"))}
