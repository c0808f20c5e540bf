"""What the bare base makes of a batch, read once: the rest runs under as many gates as one likes.

An edit changes nothing below its layer, nor anything of the tokens before the first edited one, at
any layer. So the base reads the rows once; then a forward under any gates starts from what is known
(`attachment.start`). Prompts that begin alike, as in a chat template, share their beginning: it is
read once, and stands in the first columns, before the padding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from csreft_core.attachment.attach import Attachment
from csreft_core.attachment.passes import Request
from csreft_core.attachment.start import Start, same_logits
from csreft_core.base.key_values import KeyValues, recorded, recording_cache
from csreft_core.base.library_calls import cache_argument
from csreft_core.reft.adapter import CSReFT
from csreft_core.reft.positions import PositionRule
from csreft_core.skills.batching import Batch, collate
from csreft_core.skills.encoding import Example

FEWEST_COLUMNS = 16
"""To know fewer saves less than it costs; and so the small bases compute as they always did."""

_MOST_BYTES = 256 * 2**20

_EXACT: WeakKeyDictionary[Attachment, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class Known:
    """A batch that the bare base has read.

    Attributes:
        batch: Its rows; a beginning that all share stands before the padding.
        source: The column of the left-padded batch that each of its columns was.
        states: Output of layers, by layer.
        key_values: Of the blocks that ran, by block, of all columns.
    """

    batch: Batch
    source: Int[Tensor, "batch seq"]
    states: dict[int, Float[Tensor, "batch seq d_model"]]
    key_values: dict[int, KeyValues]

    def start(self, adapter: CSReFT) -> Start:
        """Where a forward with this adapter's edits starts; its first edited layer is known."""
        return self.before(min(adapter.layers), adapter.positions, adapter.spec.router.layer)

    def before(self, first: int, positions: PositionRule, router: int = -1) -> Start:
        """Where a forward starts that edits these positions, at this layer first.

        Args:
            first: The layer; its output is known.
            positions: What is edited.
            router: Of the router, if its states are to decide the gates.
        """
        n = _columns_before(positions, self.batch)
        states = {first: self.states[first][:, n:]}
        if router >= 0:
            states[router] = self.states[router]
        above = [(b, kv) for b, kv in self.key_values.items() if b > first]
        return Start(states, {b: (k[:, :, :n], v[:, :, :n]) for b, (k, v) in above}, n)

    def left_padded(
        self, states: Float[Tensor, "batch seq d_model"]
    ) -> Float[Tensor, "batch seq d_model"]:
        """The states with their columns where the batch as it was given had them."""
        back = self.source.argsort(1).to(states.device)
        return states.gather(1, back.unsqueeze(-1).expand(-1, -1, states.shape[-1]))

    def logits(
        self, attachment: Attachment, adapter: CSReFT, req: Request, n_answer: int = 0
    ) -> Float[Tensor, "batch answer vocab"]:
        """Logits of the answers' tokens under a request, or of the next token.

        Args:
            attachment: Of the base.
            adapter: Whose edits were left room for.
            req: Its request, or one without an adapter: of the base.
            n_answer: Tokens of every row's answer; 0 is the token that follows the prompts.
        """
        n = max(1, n_answer)
        rows = torch.arange(len(self.batch.input_ids)).repeat_interleave(n)
        columns = torch.arange(-n, 0) - int(n_answer > 0)
        logits, _ = attachment.logits(
            req,
            (rows, columns.repeat(len(rows) // n)),
            **self.batch.inputs,
            prompt_mask=self.batch.prompt_mask,
            use_cache=False,
            start=self.start(adapter),
        )
        return logits.unflatten(0, (-1, n))

    def repeated(self, n: int) -> "Known":
        """Each row n times, one after the other."""
        return self._each(lambda rows: _repeat(rows, n))

    def row(self, i: int) -> "Known":
        """One row alone; what is known of it may reach further than for all rows together."""
        return self._each(lambda rows: rows[i : i + 1])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Known":
        return Known(
            Batch(**{name: change(value) for name, value in vars(self.batch).items()}),
            change(self.source),
            {layer: change(h) for layer, h in self.states.items()},
            {b: (change(k), change(v)) for b, (k, v) in self.key_values.items()},
        )


def _repeat(rows: Tensor, n: int) -> Tensor:
    """Without a copy, where it is one row."""
    if len(rows) == 1:
        return rows.expand(n, *rows.shape[1:])
    return rows.repeat_interleave(n, 0)


@torch.no_grad()
def read_ahead(
    attachment: Attachment,
    adapter: CSReFT,
    batch: Batch,
    layers: Sequence[int] = (),
    last_block: int | None = None,
) -> Known | None:
    """The rows as the bare base reads them, for forwards under many gates.

    Args:
        attachment: Of the base.
        adapter: Whose first edited layer and router's layer are known, where they are run.
        batch: The rows, padded on the left.
        layers: More layers to know.
        last_block: The blocks above do not run; None runs all.

    Returns:
        None where that saves nothing, or is not exact on this base.
    """
    if not (_pays(adapter, batch) or shares(batch)):
        return None
    if attachment not in _EXACT:
        _EXACT[attachment] = is_exact(attachment)
    if not _EXACT[attachment]:
        return None
    top = attachment.base.n_layers - 1 if last_block is None else last_block
    needed = {*layers, min(adapter.layers), adapter.spec.router.layer}
    return read(
        attachment,
        batch,
        sorted(layer for layer in needed if 0 <= layer <= top),
        positions=adapter.positions,
        last_block=top,
    )


def read(
    attachment: Attachment,
    batch: Batch,
    layers: Sequence[int],
    *,
    positions: PositionRule | None = None,
    last_block: int | None = None,
) -> Known:
    """Let the bare base read a left-padded batch.

    Args:
        attachment: Of the base.
        batch: The rows.
        layers: Whose output to know, 0-based.
        positions: Of the edits to come, which change no shared beginning; None edits nothing.
        last_block: The blocks above do not run.
    """
    n_shared = _n_shared(batch, positions)
    source = _source(batch.attention_mask.bool(), n_shared)
    moved = {
        name: getattr(batch, name).gather(1, source)
        for name in ("input_ids", "attention_mask", "prompt_mask")
    }
    batch = replace(batch, **moved)
    cache, size = recording_cache(), len(batch.input_ids)
    request = Request(None, capture=tuple(layers))
    common = {
        cache_argument(attachment.base.model): cache,
        "use_cache": True,
        "last_block": attachment.base.n_layers - 1 if last_block is None else last_block,
    }
    states: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    if n_shared:
        ids, mask = batch.input_ids[:1, :n_shared], batch.attention_mask[:1, :n_shared]
        _, shared = attachment.forward(request, input_ids=ids, attention_mask=mask, **common)
        cache.batch_repeat_interleave(size)
        for layer in layers:
            states[layer].append(shared.states[layer][0].expand(size, -1, -1))
    _, rest = attachment.forward(
        request,
        input_ids=batch.input_ids[:, n_shared:],
        attention_mask=batch.attention_mask,
        **common,
    )
    for layer in layers:
        states[layer].append(rest.states[layer][0])
    blocks = range(1 + common["last_block"])
    return Known(
        batch,
        source,
        {layer: torch.cat(parts, 1) for layer, parts in states.items()},
        recorded(cache, blocks, batch.input_ids.shape[1]),
    )


def rows_at_once(attachment: Attachment, width: int, most: int) -> int:
    """How many rows are read at once, so that what is known of them stays small."""
    base = attachment.base
    of_row = width * base.n_layers * 2 * base.d_model * 4
    return max(1, min(most, _MOST_BYTES // of_row))


def alike_together(
    positions: PositionRule, examples: Sequence[Example]
) -> Int[np.ndarray, " example"]:
    """An order in which batches run few tokens: after the first edited one all have as many.

    As they stand where too few tokens come before that.
    """
    before = [positions.n_before(len(e.prompt)) for e in examples]
    if min(before, default=0) < FEWEST_COLUMNS:
        return np.arange(len(examples))
    rest = [len(e.prompt) + len(e.answer) - n for e, n in zip(examples, before, strict=True)]
    return np.lexsort((before, rest))


def _pays(adapter: CSReFT, batch: Batch) -> bool:
    """Whether to read rows first saves anything, for several settings of gates."""
    return _columns_before(adapter.positions, batch) >= FEWEST_COLUMNS


def shares(batch: Batch) -> bool:
    """Whether the rows begin alike, for so long that it pays to read that once."""
    return _n_shared(batch, None) > 0


def _columns_before(positions: PositionRule, batch: Batch) -> int:
    """Columns that no edit changes in any row; the others hold edited tokens and answers."""
    n_prompt, n_all = batch.prompt_mask.sum(1), batch.attention_mask.sum(1)
    rest = [
        int(total) - positions.n_before(int(prompt))
        for prompt, total in zip(n_prompt, n_all, strict=True)
    ]
    return batch.input_ids.shape[1] - max(rest)


def _n_shared(batch: Batch, positions: PositionRule | None) -> int:
    """Tokens that all rows begin with; 0 where that is too few to matter."""
    n_prompt, n_all = batch.prompt_mask.sum(1), batch.attention_mask.sum(1)
    if len(n_prompt) < 2:
        return 0
    most = int(n_prompt.min()) - 1
    if positions is not None:
        most = min(most, *(positions.n_before(int(n)) for n in n_prompt))
    if most < FEWEST_COLUMNS:
        return 0
    first = batch.input_ids.shape[1] - n_all
    columns = first.unsqueeze(1) + torch.arange(most, device=first.device)
    tokens = batch.input_ids.gather(1, columns)
    n = int((tokens == tokens[:1]).all(0).long().cumprod(0).sum())
    return n if n >= FEWEST_COLUMNS else 0


def _source(real: Bool[Tensor, "batch seq"], n_shared: int) -> Int[Tensor, "batch seq"]:
    """Which column of left-padded rows comes where: the shared tokens before the padding."""
    n_padding = (~real).sum(1, keepdim=True)
    columns = torch.arange(real.shape[1], device=real.device).expand_as(real)
    padding = (columns >= n_shared) & (columns < n_shared + n_padding)
    moved = torch.where(columns < n_shared, columns + n_padding, columns)
    return torch.where(padding, columns - n_shared, moved)


@torch.no_grad()
def is_exact(attachment: Attachment) -> bool:
    """Whether this base gives the same from what is known, tried out: no table of families.

    In some families blocks share keys and values, or hand on what they chose to attend to, or have
    a state of their own instead of keys and values.
    """
    base = attachment.base
    n = FEWEST_COLUMNS + 8
    if base.context is not None and base.context <= n:
        return False
    tokens = torch.randint(base.vocabulary, (2, n), generator=torch.Generator().manual_seed(0))
    tokens[1, :FEWEST_COLUMNS] = tokens[0, :FEWEST_COLUMNS]
    ids = [tuple(tokens[0].tolist()), tuple(tokens[1, : n - 3].tolist())]
    batch = collate([Example(row[:-2], row[-2:]) for row in ids], base.pad_id).to(base.device)
    sites = torch.tensor([0, 0, 1, 1]), torch.tensor([-3, -2, -3, -2])
    first = base.n_layers // 2
    whole, _ = attachment.logits(Request(None), sites, **batch.inputs, use_cache=False)
    try:
        known = read(attachment, batch, (first,), positions=PositionRule(suffix=1))
        start = known.before(first, PositionRule(suffix=1))
        short, _ = attachment.logits(
            Request(None), sites, **known.batch.inputs, use_cache=False, start=start
        )
    except Exception:  # noqa: BLE001 - each family misses something else
        return False
    return same_logits(short, whole)
