"""States below the first edit, computed once for each training row and used again.

The base is frozen, so the output of its blocks up to the first edited layer never changes. A row's
states are computed in a batch that depends on the data, the settings and the seed alone: the
micro-batch of the first epoch that holds the row. So a training that is killed and resumed computes
the same bits again. They stay in the number format that the base gives. In memory up to a budget,
then on disk.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from csreft_core.attachment.attach import Attachment
from csreft_core.attachment.passes import Request
from csreft_core.base.library_calls import HOOKS_THAT_ONLY_READ
from csreft_core.files import storage_errors
from csreft_core.inference.scoring import Encoded
from csreft_core.reft.adapter import AdapterSpec
from csreft_core.skills.batching import collate, micro_batches
from csreft_core.skills.encoding import Example

_Row = dict[int, Tensor]


def kept_layers(spec: AdapterSpec) -> tuple[int, ...]:
    """Layers whose output is needed: the first edited one, and the router's if it lies below."""
    first = min(spec.adapter.layers)
    return tuple(sorted({first, *([spec.router.layer] if 0 <= spec.router.layer < first else [])}))


def inexact_because(attachment: Attachment, layers: Sequence[int]) -> str | None:
    """Why the kept layers need not give the same output every time; None if they do.

    A module in training mode may draw random numbers: `nn.Dropout` is not the only one, some blocks
    drop out by themselves. Linear layers never do; those of 4 bits are always in training mode. A
    hook of someone else on a lower block would work twice: when the state is made, and again when
    it is used. What an upper block reads of a lower one beside its states would be missing.
    """
    base = attachment.base
    for module in base.model.modules():
        if module.training and not isinstance(module, nn.Linear):
            return f"the base is in training mode ({type(module).__name__}), so its states may vary"
    for layer in range(max(layers) + 1):
        if _has_other_hooks(base.blocks[layer]):
            return f"block {layer} of the base has hooks of others, which may change its states"
    if not _enough(attachment, layers):
        return "blocks of the base read more of the lower ones than their states"
    return None


@torch.no_grad()
def _enough(attachment: Attachment, layers: Sequence[int]) -> bool:
    """Whether the logits follow from the kept states alone, tried on a few tokens.

    In some families blocks share keys and values, or hand on what they chose to attend to.
    """
    base, request = attachment.base, Request(None, capture=tuple(layers))
    inputs = {"input_ids": torch.arange(4, device=base.device)[None], "use_cache": False}
    whole, forward_pass = attachment.forward(request, **inputs)
    try:
        with attachment.from_states({layer: forward_pass.states[layer][0] for layer in layers}):
            from_kept, _ = attachment.forward(Request(None), **inputs)
    except Exception:  # noqa: BLE001 - each family misses something else
        return False
    return torch.allclose(from_kept.logits, whole.logits, rtol=1e-3, atol=1e-3)


def _has_other_hooks(block: nn.Module) -> bool:
    hooks = (
        hook
        for module in block.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    )
    return any(getattr(hook, "__module__", None) != HOOKS_THAT_ONLY_READ for hook in hooks)


class KeptStates:
    """The states of the training rows, made when they are first asked for.

    Args:
        attachment: Of the base.
        encoded: The training rows.
        layers: Whose output is kept.
        order: The rows in the order of the first epoch.
        batch_size: Rows of a step, over all processes.
        n_processes: Among which the rows of a step are dealt out.
        accumulate: Micro-batches of each process in a step.
        budget_bytes: Memory for states; what is beyond goes to `folder`.
        folder: Is emptied; made when it is needed.
    """

    def __init__(
        self,
        attachment: Attachment,
        encoded: Encoded,
        *,
        layers: tuple[int, ...],
        order: Int[np.ndarray, " row"],
        batch_size: int,
        n_processes: int = 1,
        accumulate: int = 1,
        budget_bytes: int,
        folder: Path,
    ) -> None:
        self.attachment, self.encoded, self.layers = attachment, encoded, layers
        self.n_bytes, self.n_chunks = 0, 0
        self._order, self._batch_size = order, batch_size
        self._n_processes, self._accumulate = n_processes, accumulate
        self._place = np.argsort(order)
        self._budget_bytes, self._folder = budget_bytes, folder
        self._in_memory: dict[int, _Row] = {}
        self._on_disk: dict[int, Path] = {}
        shutil.rmtree(folder, ignore_errors=True)

    def of(self, rows: Sequence[int]) -> dict[int, Tensor]:
        """States of rows, padded on the left like their batch: layer -> [batch, seq, d_model]."""
        states_of_rows = [self._row(row) for row in rows]
        width = max(len(one[self.layers[0]]) for one in states_of_rows)
        device = self.attachment.base.device
        batch_states = {}
        for layer in self.layers:
            first = states_of_rows[0][layer]
            states = first.new_zeros(len(states_of_rows), width, first.shape[1])
            for state, one in zip(states, states_of_rows, strict=True):
                state[width - len(one[layer]) :] = one[layer]
            batch_states[layer] = states.to(device)
        return batch_states

    def _row(self, row: int) -> _Row:
        if row not in self._in_memory and row not in self._on_disk:
            self._keep(self._chunk(row))
        if row in self._in_memory:
            return self._in_memory[row]
        with safe_open(self._on_disk[row], framework="pt") as file:
            return {layer: file.get_tensor(f"{row}.{layer}") for layer in self.layers}

    def _chunk(self, row: int) -> Int[np.ndarray, " part"]:
        """The micro-batch of the first epoch that holds the row."""
        step, within = divmod(int(self._place[row]), self._batch_size)
        rows = self._order[step * self._batch_size : (step + 1) * self._batch_size]
        process = within % self._n_processes
        parts = micro_batches(rows, process, self._n_processes, self._accumulate)
        return next(part for part in parts if row in part)

    @torch.no_grad()
    def _keep(self, rows: Int[np.ndarray, " part"]) -> None:
        states = self._compute([self.encoded.examples[row] for row in rows])
        size = sum(state.nbytes for one in states for state in one.values())
        if self.n_bytes + size <= self._budget_bytes:
            self.n_bytes += size
            self._in_memory.update(zip(map(int, rows), states, strict=True))
            return
        path = self._folder / f"{self.n_chunks}.safetensors"
        pairs = zip(map(int, rows), states, strict=True)
        tensors = {f"{row}.{l}": state for row, one in pairs for l, state in one.items()}
        with storage_errors(path):
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, path)
        self._on_disk.update((int(row), path) for row in rows)
        self.n_chunks += 1

    def _compute(self, examples: Sequence[Example]) -> list[_Row]:
        base = self.attachment.base
        batch = collate(examples, base.pad_id).to(base.device)
        _, forward_pass = self.attachment.forward(
            Request(None, capture=self.layers),
            **batch.inputs,
            last_block=max(self.layers),
            logits_to_keep=1,
            use_cache=False,
        )
        lengths = batch.attention_mask.sum(1).tolist()
        return [
            {l: forward_pass.states[l][0][i, -n:].cpu().clone() for l in self.layers}
            for i, n in enumerate(lengths)
        ]

    def clear(self) -> None:
        """Forget everything, in memory and on disk."""
        self._in_memory.clear()
        self._on_disk.clear()
        shutil.rmtree(self._folder, ignore_errors=True)
