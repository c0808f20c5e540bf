"""A base of the Llama form, from a GGUF file to the files that transformers reads.

What is written depends on the bytes that are read and on nothing else: no version of a library, no
machine. Tensors go from file to file one by one, so it takes little memory.
"""

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch

from csreft_core.base.files import Progress

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor

_OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_IN_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_SPECIAL = 3  # the type of a token that no text spells
_BYTES = 2  # of a number in bfloat16


def convert(gguf: Path, folder: Path, progress: Progress) -> dict[str, str]:
    """Write `model.safetensors` (bfloat16) and `tokenizer.json`.

    Args:
        gguf: A file that is known to be whole.
        folder: Where to; it exists.
        progress: Told of the tensors that are converted.

    Returns:
        The SHA-256 of each written file, by name.
    """
    from gguf import GGUFReader  # only here: it takes a while to load

    progress("reading the quantised file", 0, 0)
    reader = GGUFReader(gguf)
    return {
        "tokenizer.json": _write_tokenizer(reader, folder / "tokenizer.json"),
        "model.safetensors": _write_weights(reader, folder / "model.safetensors", progress),
    }


def _field(reader: "GGUFReader", name: str) -> Any:
    field = reader.get_field(name)
    assert field is not None, name
    return field.contents()


def _write_tokenizer(reader: "GGUFReader", path: Path) -> str:
    """The tokeniser in the form of the library `tokenizers`.

    The file says which splitting it wants by a name alone, `smollm`: each digit by itself, then
    words as GPT-2 splits them.
    """
    tokens = _field(reader, "tokenizer.ggml.tokens")
    types = _field(reader, "tokenizer.ggml.token_type")
    splitting = _field(reader, "tokenizer.ggml.pre")
    assert splitting == "smollm", splitting
    how = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    words = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    tree = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": tokens[i], **how, "special": True}
            for i, kind in enumerate(types)
            if kind == _SPECIAL
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {**words, "use_regex": True},
            ],
        },
        "post_processor": None,
        "decoder": {**words, "add_prefix_space": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": _field(reader, "tokenizer.ggml.merges"),
        },
    }
    data = json.dumps(tree, indent=2, ensure_ascii=False).encode()
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _write_weights(reader: "GGUFReader", path: Path, progress: Progress) -> str:
    """The weights in the format safetensors: length of the header, header, numbers."""
    tensors = {_name(tensor.name): tensor for tensor in reader.tensors}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in sorted(tensors.items()):
        start, end = end, end + _BYTES * int(tensor.n_elements)
        shape = [int(n) for n in reversed(tensor.shape)]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        _put(struct.pack("<Q", len(text)) + text, file, digest)
        for done, (_, tensor) in enumerate(sorted(tensors.items())):
            progress("converting the weights", done, len(tensors))
            _put(_numbers(tensor, reader), file, digest)
        file.flush()
        os.fsync(file.fileno())
    progress("converting the weights", len(tensors), len(tensors))
    return digest.hexdigest()


def _put(data: bytes | memoryview, file: IO[bytes], digest: Any) -> None:
    file.write(data)
    digest.update(data)


def _name(name: str) -> str:
    """What transformers calls a tensor: `blk.3.attn_q.weight` is that of a block."""
    parts = name.removesuffix(".weight").split(".")
    if len(parts) == 1:
        return f"{_OUTER[parts[0]]}.weight"
    return f"model.layers.{parts[1]}.{_IN_BLOCK[parts[2]]}.weight"


def _numbers(tensor: "ReaderTensor", reader: "GGUFReader") -> memoryview:
    from gguf import dequantize

    values = dequantize(tensor.data, tensor.tensor_type)
    part = tensor.name.split(".")[-2]
    if part in ("attn_q", "attn_k"):
        kind = "head_count" if part == "attn_q" else "head_count_kv"
        n_heads = _field(reader, f"llama.attention.{kind}")
        # llama.cpp rotates neighbours, transformers the two halves of a head.
        pairs = values.reshape(n_heads, -1, 2, values.shape[-1])
        values = pairs.swapaxes(1, 2).reshape(values.shape)
    numbers = torch.tensor(np.ascontiguousarray(values), dtype=torch.float32).to(torch.bfloat16)
    return numbers.view(torch.uint8).numpy().data
