"""Train ``pocket`` from a fixed seed and save it as a transformers folder.

Yields records while it works and prints nothing. All randomness comes from the seed; the state of
torch's global generator is put back. The same machine, seed and threads give the same bytes.
"""

import hashlib
import json
import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from csreft_core.errors import ConfigError
from csreft_core.files import storage_errors
from csreft_core.shipped.pocket.episodes import Batch, EpisodeWriter, Recipe
from csreft_core.shipped.pocket.tokenizer import MAX_LENGTH, build_tokenizer

FULL_STEPS = 1500
SEED = 0
CURVE_FILE = "loss_curve.json"

_BATCH_SIZE = 64
_LR, _LR_FLOOR, _WARMUP = 3e-3, 0.02, 50
_BETAS, _WEIGHT_DECAY, _CLIP = (0.9, 0.98), 0.05, 1.0
_DENSE_STEPS, _SPARSE_EVERY = 50, 25


def build(
    out: Path, *, steps: int | None = None, seed: int = SEED, threads: int = 2
) -> Iterator[dict[str, Any]]:
    """Train the base and save it to ``out``; the folder appears only when it is complete.

    Fewer ``steps`` than the full number stop the same training early, so the losses of a short
    build are the first losses of a full one.

    Args:
        out: Folder to create; it must not exist, or be empty.
        steps: Optimiser steps, at most `FULL_STEPS`, which is the default.
        seed: Seed of the weights and of the documents.
        threads: CPU threads; another number changes the last bits of every loss.

    Yields:
        ``{"event": "step", "step", "steps", "loss", "elapsed_s"}`` after each step, the loss in
        nats per predicted token, then ``{"event": "saved", "path", "sha256", "n_parameters"}``.

    Raises:
        ConfigError: ``out`` holds something already, or ``steps`` is out of range.
    """
    steps = FULL_STEPS if steps is None else steps
    if not 1 <= steps <= FULL_STEPS:
        raise ConfigError(f"steps: expected 1 to {FULL_STEPS}, got {steps}; choose fewer or none")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: expected a new or empty folder; choose another --out")
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        tokenizer = build_tokenizer()
        model = new_model(len(tokenizer), seed)
        losses: list[float] = []
        for record in _train(model, EpisodeWriter(tokenizer, Recipe()), steps, seed):
            losses.append(record["loss"])
            yield record
        yield _save(out, model, tokenizer, _curve(losses, seed, threads))
    finally:
        torch.set_num_threads(threads_before)


def new_model(vocabulary_size: int, seed: int) -> LlamaForCausalLM:
    """The untrained base; torch's global random state is left as it was."""
    config = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def loss_on(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Mean loss in nats over the tokens of ``batch`` that are to be predicted."""
    states = model.model(input_ids=batch.input_ids, attention_mask=batch.may_see).last_hidden_state
    at_target = batch.is_target[:, 1:]
    logits = model.lm_head(states[:, :-1][at_target])
    return functional.cross_entropy(logits, batch.input_ids[:, 1:][at_target])


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _train(
    model: LlamaForCausalLM, writer: EpisodeWriter, steps: int, seed: int
) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    optimizer = _optimizer(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _lr_factor)
    model.train()
    started = time.perf_counter()
    for step in range(1, steps + 1):
        loss = loss_on(model, writer.batch(rng, _BATCH_SIZE))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
        optimizer.step()
        schedule.step()
        yield {
            "event": "step",
            "step": step,
            "steps": steps,
            "loss": loss.item(),
            "elapsed_s": time.perf_counter() - started,
        }


def _optimizer(model: LlamaForCausalLM) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    scales = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": _WEIGHT_DECAY},
        {"params": scales, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=_LR, betas=_BETAS)


def _lr_factor(step: int) -> float:
    """Linear warm-up, then half a cosine down to a small floor at the full number of steps."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / FULL_STEPS))
    return min((step + 1) / _WARMUP, 1.0) * (_LR_FLOOR + (1 - _LR_FLOOR) * cosine)


def _curve(losses: list[float], seed: int, threads: int) -> dict[str, Any]:
    points = {
        step: round(loss, 6)
        for step, loss in enumerate(losses, start=1)
        if step <= _DENSE_STEPS or step % _SPARSE_EVERY == 0 or step == len(losses)
    }
    return {
        "seed": seed,
        "threads": threads,
        "torch": torch.__version__,
        "step": list(points),
        "loss": list(points.values()),
    }


def _save(
    out: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, curve: dict[str, Any]
) -> dict[str, Any]:
    """Write everything next to ``out`` first, then move it there in one step."""
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            model.eval()
            model.save_pretrained(draft)
            tokenizer.save_pretrained(draft)
            (draft / CURVE_FILE).write_text(json.dumps(curve) + "\n", encoding="utf-8")
            draft.chmod(0o755)
            draft.replace(out)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    return {
        "event": "saved",
        "path": str(out),
        "sha256": file_sha256(out / "model.safetensors"),
        "n_parameters": model.num_parameters(),
    }
