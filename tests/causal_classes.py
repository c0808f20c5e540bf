"""Every causal model class of transformers as a tiny random model, built from its config class.

The fields of a config are made small by their names, nested ones too; `_OWN` holds what a class
needs beyond that. Nothing is fetched.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

N_LAYERS = 4
VOCABULARY = 96
_WIDTH, _HEADS, _MLP, _CONTEXT = 32, 4, 64, 64
_MOST_PARAMETERS = 8_000_000

_SMALL: tuple[tuple[int, Sequence[str]], ...] = (
    (VOCABULARY, ("vocab_size", "vocab_size_per_layer_input", "unpadded_vocab_size")),
    (
        _WIDTH,
        """
        hidden_size d_model n_embd emb_dim embedding_dim embedding_size word_embed_proj_dim
        input_embedding_size output_embedding_size lru_width attention_hidden_size
        hidden_size_global cross_attention_hidden_size adapter_in_dim adapter_out_dim
    """.split(),
    ),
    (
        _MLP,
        """
        intermediate_size moe_intermediate_size ffn_dim decoder_ffn_dim d_inner
        encoder_ffn_dim ffn_hidden_size expert_ffn_hidden_size dim_ff dff feed_forward_size
        shared_expert_intermediate_size intermediate_size_mlp shared_intermediate_size
        shared_experts_intermediate_size dense_intermediate_size
        moe_shared_expert_intermediate_size n_inner d_ff mlp_dim
    """.split(),
    ),
    (
        _HEADS,
        """
        num_attention_heads n_head n_heads num_heads decoder_attention_heads
        encoder_attention_heads num_decoder_attention_heads attention_heads
        num_encoder_attention_heads linear_num_value_heads linear_num_heads index_n_heads
        swa_num_attention_heads mamba_n_heads mamba_num_heads n_mamba_heads n_routed_experts
        num_experts num_local_experts moe_num_experts
    """.split(),
    ),
    (
        2,
        """
        num_key_value_heads num_kv_heads linear_num_key_heads swa_num_key_value_heads
        num_experts_per_tok num_experts_per_token moe_k moe_topk first_k_dense_replace
        mamba_dt_rank time_step_rank num_kv_shared_layers rotary_dim n_groups mamba_n_groups
    """.split(),
    ),
    (
        8,
        """
        head_dim attention_head_dim d_head dim_head v_head_dim qk_nope_head_dim
        qk_rope_head_dim kv_lora_rank linear_key_head_dim linear_value_head_dim
        linear_head_dim index_head_dim swa_head_dim attention_head_size sliding_window
        sliding_window_size attention_window_size local_attention
        hidden_size_per_layer_input ssm_state_size state_size mamba_d_state index_topk
        chunk_size mamba_chunk_size kv_channels d_kv laurel_rank query_pre_attn_scalar
        adapter_rank router_hidden_size dim_model_base attention_chunk_size
        gate_low_rank_dim loop_gate_rank hc_lowrank gated_norm_rank o_lora_rank window_size
    """.split(),
    ),
    (
        16,
        """
        q_lora_rank rope_head_dim mamba_d_head mamba_head_dim mamba_headdim rel_extent
        local_attention_window_len
    """.split(),
    ),
    (1, ("n_group", "topk_group", "num_expert_group", "n_shared_experts")),
    (
        _CONTEXT,
        """
        max_position_embeddings n_positions n_ctx max_seq_len context_length
        max_target_positions max_source_positions model_max_length seq_length
        original_max_position_embeddings
    """.split(),
    ),
)
_LAYERS = """
    num_hidden_layers n_layer n_layers num_layers decoder_layers num_blocks encoder_layers
    num_decoder_layers num_encoder_layers depth
""".split()
_SIZES = {name: size for size, names in _SMALL for name in names}
_KINDS = ("layer_types", "mlp_layer_types", "layers_block_type", "block_types", "indexer_types")
_RANGES = ("initializer_range", "init_std")
_TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "decoder_start_token_id": 1}
_ENCODER_LAYERS = 2
_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
_DOTS3 = {"head_dim": 16, "swa_head_dim": 16, "swa_qk_nope_head_dim": 8, "swa_qk_rope_head_dim": 8}
_QWEN4 = {
    "indexer_n_heads": 4,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 8,
    "indexer_compress_ratio": 2,
}
_EXPERTS = {"n_routed_experts": 4, "n_shared_experts": 1}
_OWN: dict[str, dict[str, Any]] = {
    "axk1": {"mlp_layer_types": ["dense", "sparse", "dense", "sparse"]},
    "bamba": {"attn_layer_indices": [1, 3]},
    "blt": {"encoder_hash_byte_group_vocab": 96},
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {**_EXPERTS, "num_experts_per_tok": 2},
    "dots3_note": {"text_config": _DOTS3},
    "dots3_note_text": _DOTS3,
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma4_assistant": {"text_config": {"hidden_size_per_layer_input": 0}},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"head_dim": 16},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp": {"text_config": _QWEN4},
    "qwen4_exp_text": _QWEN4,
    "reformer": {
        "axial_pos_shape": [8, 8],
        "axial_pos_embds_dim": [16, 16],
        "local_attn_chunk_length": 8,
        "lsh_attn_chunk_length": 8,
    },
    "roc_bert": {"pronunciation_vocab_size": 96, "shape_vocab_size": 96},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"attention_hidden_size": 64, "attention_head_dim": 16, "num_key_value_heads": 4},
    "zamba2": {"attention_hidden_size": 64, "attention_head_dim": 16, "num_key_value_heads": 4},
    "zaya": {"num_experts_per_tok": 1},
}


def tiny_config(model_type: str, **more: Any) -> PreTrainedConfig:
    """The config of a class, with all sizes that are known by name made small."""
    config_class = CONFIG_MAPPING[model_type]
    settings = _shrunk(_defaults(config_class))
    _put(settings, _OWN.get(model_type, {}))
    return config_class(**settings, **more)


def _put(settings: dict[str, Any], own: dict[str, Any]) -> None:
    for name, value in own.items():
        if isinstance(value, dict):
            _put(settings.setdefault(name, {}), value)
        else:
            settings[name] = value


def _defaults(config_class: type[PreTrainedConfig]) -> dict[str, Any]:
    return config_class().to_dict()


def _shrunk(tree: dict[str, Any], n_layers: int = N_LAYERS) -> dict[str, Any]:
    """The small values of the fields that a config has, by name; nested configs as well."""
    small: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and name.endswith("config"):
            # Encoders of images and sound have another number of layers, as real ones do.
            small[name] = _shrunk(value, N_LAYERS if "text" in name else _ENCODER_LAYERS)
        elif name in _LAYERS:
            small[name] = n_layers
        elif name in _KINDS and isinstance(value, list):
            kinds = list(dict.fromkeys(value))
            small[name] = [kinds[i % len(kinds)] for i in range(n_layers)]
        elif name in _SIZES and isinstance(value, int):
            small[name] = _SIZES[name]
        elif name in _TOKENS:
            small[name] = _TOKENS[name]
        elif name.endswith(("token_id", "token_index")):
            small[name] = 3
        elif name in _RANGES:
            small[name] = 0.1
    if tree.get("is_decoder") is False:
        small["is_decoder"] = True
    if "kv_lora_rank" in small:  # one key for each head is made from what is kept
        small["num_key_value_heads"] = _HEADS
    return small


def tiny_model(config: PreTrainedConfig) -> PreTrainedModel:
    """The model with weights that make each part count."""
    with torch.device("meta"):
        size = AutoModelForCausalLM.from_config(config).num_parameters()
    if size > _MOST_PARAMETERS:
        raise ValueError(f"{size / 1e6:.0f} million parameters")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        with torch.no_grad():
            for parameter in model.parameters():  # some parts start at zero, or at one
                parameter += 0.05 * torch.randn_like(parameter)
        return model


def model_types() -> list[str]:
    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
