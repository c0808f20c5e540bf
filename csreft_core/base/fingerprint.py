"""The record of a base (see `base_record`): hashes of its weights, description and tokeniser.

Weights are hashed as they stand in the files, in bfloat16, while the base is loaded: so a record is
the same at every precision and on every device, also where the loaded weights are packed into 4
bits. A copy of the files in bfloat16 has the same record; one in float16 rounds otherwise and has
another.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from csreft_core.reft.base_record import Identity

Digests = Mapping[str, tuple[tuple[int, ...], str]]
"""Name of a tensor -> its shape and the hash of its values."""

_CHUNK = 2**24  # numbers that are converted at a time
_MOST_THREADS = 4
# What `config.json` says of the file, of training and of decoding: a forward does not follow it.
_NO_MATTER = {
    "architectures",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "_name_or_path",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "unk_token_id",
    "sep_token_id",
    "id2label",
    "label2id",
    "initializer_range",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "problem_type",
    "tokenizer_class",
    "auto_map",
    "attn_implementation",
    "_attn_implementation",
    "task_specific_params",
    "pretraining_tp",
    "gradient_checkpointing",
    "finetuning_task",
}
# One text for each thing in which tokenisers differ: case, marks, numbers, spaces, lines, scripts.
_PROBES = (
    "The quick brown fox jumps over the lazy dog's back.",
    "HELLO Hello hello, cafe\u0301 caf\u00e9 Stra\u00dfe na\u00efve",
    "1234567 3.14159 2**10 $5.00 10%",
    " leading  two   three spaces\ttab\nline\r\n\n    indented = f(x) # code",
    "\u5317\u4eac \u3053\u3093\u306b\u3061\u306f \uc548\ub155",
    "\u041f\u0440\u0438\u0432\u0435\u0442 \u05e9\u05dc\u05d5\u05dd \U0001f642",
)


@contextmanager
def hashing(files: Iterable[Path]) -> Iterator[Callable[[], Digests]]:
    """Hash the tensors of safetensors files in threads, while the caller does other things.

    Yields:
        What waits for the hashes and returns them.
    """
    stop, n = Event(), min(_MOST_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(n) as pool:
        parts = [pool.submit(_of_file, path, i, n, stop) for path in files for i in range(n)]
        try:
            yield lambda: {name: digest for part in parts for name, digest in part.result().items()}
        finally:
            stop.set()


def _of_file(path: Path, first: int, step: int, stop: Event) -> Digests:
    with safe_open(path, framework="pt") as file:
        names = sorted(file.keys())[first::step]
        return {name: _digest(file.get_tensor(name), stop) for name in names if not stop.is_set()}


@torch.no_grad()
def _digest(tensor: Tensor, stop: Event | None = None) -> tuple[tuple[int, ...], str]:
    """Shape, and hash of the values: floats in bfloat16, others as they are."""
    digest, flat = hashlib.sha256(), tensor.detach().reshape(-1)
    for start in range(0, len(flat), _CHUNK):
        if stop is not None and stop.is_set():
            break
        part = flat[start : start + _CHUNK]
        part = part.to(torch.bfloat16) if part.is_floating_point() else part
        digest.update(part.cpu().contiguous().view(torch.uint8).numpy().data)
    return tuple(tensor.shape), digest.hexdigest()


def identity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    digests: Digests | None = None,
    description: Mapping[str, Any] | None = None,
    unused: Iterable[str] = (),
) -> Identity:
    """The record of a loaded base.

    Args:
        model: The loaded model.
        tokenizer: Its tokeniser, as it was loaded.
        digests: Of its files; None hashes the weights in memory.
        description: Its `config.json`; None takes the model's configuration.
        unused: Names of tensors of the files that the model does not take.
    """
    if digests is None:
        digests = {name: _digest(weight.data) for name, weight in model.named_parameters()}
    if description is None:
        description = json.loads(model.config.to_json_string(use_diff=True))
    embedding = model.get_input_embeddings().weight
    assert isinstance(embedding, Tensor)
    model_digests = {name: digest for name, digest in digests.items() if name not in set(unused)}
    return Identity(
        weights=_hash(_lines(model_digests, len(embedding))),
        description=_hash(_plain(description)),
        tokenizer=_hash(_of_tokenizer(tokenizer)),
        template=_hash(tokenizer.chat_template),
        old=old_rule(model),
    )


def _lines(digests: Digests, rows: int) -> list[list[Any]]:
    """Name, shape and hash of each; embedding and head without a name, once where they are one.

    Some files hold a tied head a second time, others leave it out.
    """
    lines = [[name, *digest] for name, digest in digests.items() if digest[0][:1] != (rows,)]
    tables = {digest for digest in digests.values() if digest[0][:1] == (rows,)}
    return [*sorted(lines), *sorted(["", *digest] for digest in tables)]


def _plain(tree: Any) -> Any:
    """A description without what does not matter; 1e4, 10000 and 10000.0 are one number."""
    if isinstance(tree, Mapping):
        entries = {str(k): _plain(v) for k, v in tree.items() if k not in _NO_MATTER}
        return {name: value for name, value in entries.items() if value is not None}
    if isinstance(tree, list | tuple):
        return [_plain(value) for value in tree]
    if isinstance(tree, float) and tree.is_integer():
        return int(tree)
    return tree


def _of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    return [sorted(tokenizer.get_vocab().items()), special, [_ids(tokenizer, t) for t in _PROBES]]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> Any:
    try:
        return tokenizer(text, verbose=False)["input_ids"]
    except Exception as error:  # noqa: BLE001 - one without an unknown token cannot split each text
        return type(error).__name__


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@torch.no_grad()
def old_rule(model: PreTrainedModel) -> str:
    """The record of earlier versions: SHA-256 over the weights' names and the embedding."""
    digest = hashlib.sha256()
    digest.update("\n".join(sorted(name for name, _ in model.named_parameters())).encode())
    embedding = model.get_input_embeddings()
    assert isinstance(embedding.weight, Tensor)
    table = embedding.weight.detach().to(torch.bfloat16).cpu().contiguous()
    digest.update(str(tuple(table.shape)).encode())
    digest.update(table.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
