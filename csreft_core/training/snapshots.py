"""Snapshots: small arrays kept during training, for pictures over the steps.

A snapshot is a safetensors file with, for at most 48 validation prompts, `gates` [prompt, k], and
for each edited layer l the states of the last prompt token `before.l` and `after.l`
[prompt, d_model] and the basis `R.l` [group, k, rank, d_model]. `rows` are the prompts' places
among the rows that the trainer scores (`scoring.scored_rows` of the validation split). States
and R are float16.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from csreft_core.attachment.attach import Attachment
from csreft_core.attachment.passes import request
from csreft_core.files import replacing, storage_errors
from csreft_core.inference.scoring import Encoded, row_labels
from csreft_core.reft.adapter import CSReFT
from csreft_core.skills.batching import collate
from csreft_core.skills.encoding import Example
from csreft_core.skills.skill_set import Row
from csreft_core.training.kept_states import KeptStates

N_PROMPTS = 48


@torch.no_grad()
def save_snapshot(
    path: Path,
    attachment: Attachment,
    adapter: CSReFT,
    encoded: Encoded,
    gate_setting: str,
    kept: KeptStates | None = None,
) -> list[tuple[Row, Tensor]]:
    """Write a snapshot; returns the prompts' rows with their gates.

    Args:
        path: File to write, atomically.
        encoded: Validation rows; up to `N_PROMPTS` of them are taken evenly.
        gate_setting: Gate setting.
        kept: What is known of `encoded`.
    """
    n = len(encoded.rows)
    take = np.unique(np.linspace(0, n - 1, min(n, N_PROMPTS)).astype(int))
    rows = [encoded.rows[i] for i in take]
    base = attachment.base
    batch = collate([Example(encoded.examples[i].prompt, ()) for i in take], base.pad_id)
    batch = batch.to(base.device)
    _, forward_pass = attachment.forward(
        request(adapter, gate_setting, row_labels(rows, adapter.names), capture=adapter.layers),
        **batch.inputs,
        start=None if kept is None else kept.of(take.tolist(), answers=False),
        logits_to_keep=1,
        use_cache=False,
    )
    tensors: dict[str, Any] = {"rows": torch.as_tensor(take), "gates": forward_pass.prompt_gates()}
    for layer in adapter.layers:
        before, after = forward_pass.states[layer]
        tensors[f"before.{layer}"] = before[:, -1].half()
        tensors[f"after.{layer}"] = after[:, -1].half()
        tensors[f"R.{layer}"] = adapter.at(layer).basis().half()
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(tensors, temporary)
    return list(zip(rows, tensors["gates"], strict=True))


def read_snapshot(path: Path) -> dict[str, Tensor]:
    """The arrays of one snapshot."""
    return load_file(path)
