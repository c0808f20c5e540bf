"""Small random models of many families, and one forward or one answer of them."""

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from csreft_core.attachment.attach import attach

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA_LIKE = {
    **SIZES,
    "intermediate_size": 64,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
FAMILIES = {
    "llama": (LlamaConfig, LLAMA_LIKE),
    "qwen2": (Qwen2Config, LLAMA_LIKE),
    "mistral": (MistralConfig, LLAMA_LIKE),
    "mixtral": (MixtralConfig, {**LLAMA_LIKE, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3": (Qwen3Config, {**LLAMA_LIKE, "head_dim": 8}),
    "phi3": (Phi3Config, LLAMA_LIKE),
    "gemma3": (Gemma3TextConfig, {**LLAMA_LIKE, "head_dim": 8, "sliding_window": 8}),
    "gemma2": (Gemma2Config, {**LLAMA_LIKE, "head_dim": 8}),
    "neox": (GPTNeoXConfig, {**SIZES, "intermediate_size": 64, "max_position_embeddings": 64}),
    "opt": (
        OPTConfig,
        {**SIZES, "ffn_dim": 64, "max_position_embeddings": 64, "word_embed_proj_dim": 32},
    ),
    "gpt2": (
        GPT2Config,
        {
            "vocab_size": 96,
            "n_embd": 32,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 64,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
    ),
}
# The blocks of these differ from llama's within the attention alone, where nothing is hooked.
_LIKE_LLAMA = ("qwen2", "mistral", "qwen3")
_KINDS = [family for family in FAMILIES if family not in _LIKE_LLAMA]
ALL_FAMILIES = pytest.mark.parametrize("family", _KINDS)
"""One for each way in which blocks are built."""


def with_positions(*rules: str) -> pytest.MarkDecorator:
    """Every rule of positions on llama; of the other families each has the first and one more."""
    others = [family for family in _KINDS if family != "llama"]
    cases = [("llama", rule) for rule in rules] + [(family, rules[0]) for family in others]
    cases += [(family, rules[1 + i % (len(rules) - 1)]) for i, family in enumerate(others)]
    return pytest.mark.parametrize(("family", "positions"), cases)


# Same numbers in another order of batch or cache; float32 over three blocks.
SAME_LOGITS = 1e-4


def build(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    config_class, settings = FAMILIES[family]
    config = config_class(**settings, initializer_range=0.1, attn_implementation="eager")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).to(dtype).eval()


@torch.no_grad()
def logits(base, inputs, **more) -> torch.Tensor:
    return base.model(**inputs, **more).logits


def edited(base, adapter, inputs, gates="learned", **more) -> torch.Tensor:
    with attach(base, adapter, gates):
        return logits(base, inputs, **more)


@torch.no_grad()
def generated(base, inputs, n=6, **kwargs):
    more = {"do_sample": False, "max_new_tokens": n, "min_new_tokens": n, "pad_token_id": 0}
    return base.model.generate(
        **inputs, **{**more, **kwargs}, output_logits=True, return_dict_in_generate=True
    )


def step_logits(out) -> torch.Tensor:
    return torch.stack(out.logits, 1)


class Spy(nn.Module):
    """Counts how often the edit runs; the edit itself is the real one."""

    def __init__(self, adapter):
        super().__init__()
        self.calls, self.sites = 0, 0
        for layer in adapter.layers:
            adapter.at(layer).register_forward_hook(self._count)

    def _count(self, _module, args, _output):
        self.calls += 1
        self.sites += len(args[0])
