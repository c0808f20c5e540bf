"""What no edit changes, computed once for each row and used again.

The base is frozen. So the output of its blocks up to the first edited layer never changes, and of
the tokens before the first edited one nothing does, at any layer: their keys and values are all
that later tokens read of them. A row's tensors are computed in a batch that depends on the data,
the settings and the seed alone: the micro-batch of the first epoch that holds the row. So a
training that is killed and resumed computes the same bits again. They stay in the number format
that the base gives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from csreft_core.attachment.attach import Attachment
from csreft_core.attachment.passes import Request
from csreft_core.attachment.start import Start
from csreft_core.base.key_values import KeyValues, recorded, recording_cache
from csreft_core.base.library_calls import cache_argument
from csreft_core.inference.scoring import Encoded
from csreft_core.reft.adapter import AdapterSpec
from csreft_core.reft.positions import PositionRule, parse_positions
from csreft_core.skills.batching import Batch, collate, micro_batches
from csreft_core.skills.encoding import Example
from csreft_core.training.row_store import RowStore, RowTensors

_AT_A_TIME = 8
_Form = tuple[tuple[int, int], tuple[int, int]]
"""Heads and their size, of keys and of values."""


@dataclass(frozen=True)
class Contents:
    """What is kept of each row.

    Attributes:
        first: The first edited layer; its output is kept.
        router: The router's layer; its output is kept of all tokens, if it is not above `first`.
        positions: Tokens before the first edited one are kept as keys and values of the blocks
            above; None keeps nothing of the kind.
    """

    first: int
    router: int = -1
    positions: PositionRule | None = None

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers whose output is kept, in their order."""
        below = [self.router] if 0 <= self.router < self.first else []
        return (*below, self.first)

    def n_before(self, example: Example) -> int:
        """Tokens of a row that no step has to run."""
        return 0 if self.positions is None else self.positions.n_before(len(example.prompt))


def everything_of(spec: AdapterSpec) -> Contents:
    """All that an adapter leaves unchanged."""
    positions = parse_positions(spec.adapter.positions)
    return Contents(min(spec.adapter.layers), spec.router.layer, positions)


class KeptStates:
    """What is kept of rows, made when it is first asked for.

    Args:
        attachment: Of the base.
        encoded: The rows.
        contents: What is kept of each.
        store: Where; others may use it, too.
        name: Of these rows in the store.
        order: The rows in the order of the first epoch; as they stand if not given.
        batch_size: Rows of a step, over all processes.
        n_processes: Among which the rows of a step are dealt out.
        accumulate: Micro-batches of each process in a step.
    """

    def __init__(
        self,
        attachment: Attachment,
        encoded: Encoded,
        contents: Contents,
        store: RowStore,
        *,
        name: str = "train",
        order: Int[np.ndarray, " row"] | None = None,
        batch_size: int,
        n_processes: int = 1,
        accumulate: int = 1,
    ) -> None:
        self.attachment, self.encoded = attachment, encoded
        self.contents, self.store = contents, store
        self._name, self._batch_size = name, batch_size
        self._n_processes, self._accumulate = n_processes, accumulate
        self._order = np.arange(len(encoded.rows)) if order is None else order
        self._place = np.argsort(self._order)
        # No batch runs more of a row than this, so of most layers no more is needed.
        self._longest_rest = max(map(self._n_rest, encoded.examples))
        self._forms: dict[int, _Form] = {}

    def _n_rest(self, example: Example) -> int:
        return len(example.prompt) + len(example.answer) - self.contents.n_before(example)

    def _n_kept(self, example: Example) -> dict[str, int]:
        """Of how many tokens of a row each tensor is kept: for states its last, else its first."""
        n = len(example.prompt) + len(example.answer)
        few = min(n, self._longest_rest)
        layers, router = self.contents.layers, self.contents.router
        states = {f"states.{layer}": n if layer == router else few for layer in layers}
        return states | dict.fromkeys(("keys", "values"), self.contents.n_before(example))

    def n_bytes(self, of_token: Mapping[str, float]) -> int:
        """Size of all rows together, from the bytes that a token takes in each tensor."""
        return round(
            sum(
                n * of_token.get(name, 0)
                for example in self.encoded.examples
                for name, n in self._n_kept(example).items()
            )
        )

    def bytes_of_token(self) -> dict[str, float]:
        """Bytes that a token takes in each tensor."""
        return {name: tensor.nbytes / len(tensor) for name, tensor in self._row(0).items()}

    def of(self, rows: Sequence[int], *, answers: bool = True) -> Start:
        """Where a forward of these rows starts, padded on the left like their batch.

        Args:
            rows: Places among the rows.
            answers: Whether the batch has the answers too.
        """
        whole = [self.encoded.examples[row] for row in rows]
        examples = whole if answers else [Example(example.prompt, ()) for example in whole]
        lengths = [len(example.prompt) + len(example.answer) for example in examples]
        n_left = [0 if answers else len(example.answer) for example in whole]
        known = [self._row(row) for row in rows]
        width, n_run = max(lengths), max(map(self._n_rest, examples))
        states = {}
        for layer in self.contents.layers:
            n_columns = width if layer == self.contents.router else n_run
            parts = [one[f"states.{layer}"] for one in known]
            ends = [len(part) - left for part, left in zip(parts, n_left, strict=True)]
            parts = [part[:end][-n_columns:] for part, end in zip(parts, ends, strict=True)]
            states[layer] = self._together(parts, n_columns)
        n_before = [max(0, length - n_run) for length in lengths]
        key_values = self._key_values(known, n_before) if width > n_run else {}
        return Start(states, key_values, width - n_run)

    def _key_values(
        self, known: Sequence[RowTensors], n_before: Sequence[int]
    ) -> dict[int, KeyValues]:
        """Keys and values of the first tokens of rows, by block; some have none."""
        both: list[tuple[Tensor, ...]] = []
        for i, kind in enumerate(("keys", "values")):
            some = next((one[kind] for one in known if kind in one), None)
            if some is None:  # nothing runs above the first edited layer
                return {}
            parts = [one.get(kind, some)[:n] for one, n in zip(known, n_before, strict=True)]
            sizes = [heads * size for heads, size in (form[i] for form in self._forms.values())]
            both.append(self._together(parts, max(n_before)).split(sizes, -1))
        return {
            block: (_in_heads(keys, form[0]), _in_heads(values, form[1]))
            for (block, form), keys, values in zip(self._forms.items(), *both, strict=True)
        }

    def _together(
        self, parts: Sequence[Tensor], n_columns: int
    ) -> Float[Tensor, "batch column size"]:
        """Parts of rows, [token, size], padded on the left to so many columns."""
        together = parts[0].new_zeros(len(parts), n_columns, parts[0].shape[1])
        for row, part in zip(together, parts, strict=True):
            row[n_columns - len(part) :] = part
        return together.to(self.attachment.base.device)

    def _row(self, row: int) -> RowTensors:
        if f"{self._name}{row}" not in self.store:
            for rows in self._of_like_length(self._chunk(row)):
                found = self._compute([self.encoded.examples[i] for i in rows])
                known = zip(rows, found, strict=True)
                self.store.put({f"{self._name}{i}": one for i, one in known})
        return self.store[f"{self._name}{row}"]

    def _chunk(self, row: int) -> Int[np.ndarray, " part"]:
        """The micro-batch of the first epoch that holds the row."""
        step, within = divmod(int(self._place[row]), self._batch_size)
        rows = self._order[step * self._batch_size : (step + 1) * self._batch_size]
        process = within % self._n_processes
        parts = micro_batches(rows, process, self._n_processes, self._accumulate)
        return next(part for part in parts if row in part)

    def _of_like_length(self, rows: Int[np.ndarray, " part"]) -> list[Int[np.ndarray, " few"]]:
        """The rows, a few at a time, so that little of what is computed is padding."""
        examples = [self.encoded.examples[row] for row in rows]
        lengths = [len(example.prompt) + len(example.answer) for example in examples]
        in_order = rows[np.argsort(lengths, kind="stable")]
        return np.split(in_order, range(_AT_A_TIME, len(rows), _AT_A_TIME))

    @torch.no_grad()
    def _compute(self, examples: Sequence[Example]) -> list[RowTensors]:
        base, first = self.attachment.base, self.contents.first
        batch = collate(examples, base.pad_id).to(base.device)
        _, forward_pass = self.attachment.forward(
            Request(None, capture=self.contents.layers),
            **batch.inputs,
            last_block=first,
            logits_to_keep=1,
            use_cache=False,
        )
        states = {layer: before for layer, (before, _) in forward_pass.states.items()}
        rows: list[RowTensors] = []
        for i, example in enumerate(examples):
            n_kept = self._n_kept(example)
            names = {f"states.{layer}": layer for layer in self.contents.layers}
            rows.append({name: _copy(states[l][i, -n_kept[name] :]) for name, l in names.items()})
        width = batch.input_ids.shape[1]
        n_columns = width - min(map(self._n_rest, examples))
        if first < base.n_layers - 1 and any(map(self.contents.n_before, examples)):
            self._add_key_values(rows, examples, batch, states[first][:, :n_columns])
        return rows

    def _add_key_values(
        self,
        rows: Sequence[RowTensors],
        examples: Sequence[Example],
        batch: Batch,
        states: Float[Tensor, "batch column d_model"],
    ) -> None:
        """Run the blocks above on the first columns, from the output of the first edited one."""
        base, first, n_columns = self.attachment.base, self.contents.first, states.shape[1]
        cache = recording_cache()
        inputs = {name: tensor[:, :n_columns] for name, tensor in batch.inputs.items()}
        self.attachment.forward(
            Request(None),
            **inputs,
            **{cache_argument(base.model): cache},
            start=Start({first: states}),
            logits_to_keep=1,
            use_cache=True,
        )
        found = recorded(cache, range(first + 1, base.n_layers), n_columns)
        self._forms = {b: (_form(keys), _form(values)) for b, (keys, values) in found.items()}
        for i, kind in enumerate(("keys", "values")):
            together = torch.cat([pair[i].transpose(1, 2).flatten(2) for pair in found.values()], 2)
            for row, example, one in zip(rows, examples, together, strict=True):
                n_padding = batch.input_ids.shape[1] - len(example.prompt) - len(example.answer)
                n = self.contents.n_before(example)
                row[kind] = _copy(one[n_padding : n_padding + n])


def _form(states: Float[Tensor, "batch head column size"]) -> tuple[int, int]:
    """Heads and size of each."""
    return states.shape[1], states.shape[3]


def _in_heads(
    states: Float[Tensor, "batch column all"], form: tuple[int, int]
) -> Float[Tensor, "batch head column size"]:
    return states.unflatten(-1, form).transpose(1, 2)


def _copy(states: Tensor) -> Tensor:
    return states.cpu().clone()
