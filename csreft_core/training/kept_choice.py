"""What of a training's rows can be kept: what is exact on this base, and fits.

Whether a forward that starts from it gives the same is tried out. No table of model families.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from csreft_core.attachment.attach import Attachment
from csreft_core.attachment.passes import Request
from csreft_core.attachment.start import same_logits
from csreft_core.base.library_calls import HOOKS_THAT_ONLY_READ
from csreft_core.base.memory.need import in_gb
from csreft_core.inference.scoring import Encoded
from csreft_core.reft.positions import PositionRule
from csreft_core.skills.batching import IGNORED, collate
from csreft_core.skills.encoding import Example
from csreft_core.skills.skill_set import Row
from csreft_core.training.kept_states import Contents, KeptStates
from csreft_core.training.row_store import RowStore

_FEWEST_TOKENS, _MOST_ANSWER_TOKENS = 9, 16


@dataclass(frozen=True)
class Choice:
    """What is kept, if anything, and a note where that is not all that could be.

    Attributes:
        contents: None keeps nothing.
        note: For the user; None if nothing is missing.
    """

    contents: Contents | None
    note: str | None = None


def choose(
    attachment: Attachment, wanted: Contents, rows: Encoded, *, in_memory: int, on_disk: int
) -> Choice:
    """What of these rows is kept.

    Args:
        attachment: Of the base.
        wanted: All that the edits leave unchanged.
        rows: The training rows.
        in_memory: Bytes that may be kept in memory.
        on_disk: And on disk.
    """
    reason = changing_because(attachment, range(wanted.first + 1))
    if reason is not None:
        return _nothing(reason)
    states = replace(wanted, positions=None)
    if any(map(wanted.n_before, rows.examples)):
        blocks = range(wanted.first + 1, attachment.base.n_layers)
        reason = changing_because(attachment, blocks) or _unfit(
            attachment, wanted, rows, in_memory, on_disk
        )
        if reason is None:
            return Choice(wanted)
    lacking = reason
    reason = _unfit(attachment, states, rows, in_memory, on_disk)
    if reason is not None:
        return _nothing(reason)
    note = None if lacking is None else f"train.keep_states keeps states alone: {lacking}"
    return Choice(states, note)


def _nothing(reason: str) -> Choice:
    return Choice(None, f"train.keep_states is not in use: {reason}")


def changing_because(attachment: Attachment, blocks: Sequence[int]) -> str | None:
    """Why these blocks need not give the same every time; None if they do.

    A module in training mode may draw random numbers: `nn.Dropout` is not the only one, some blocks
    drop out by themselves. Linear layers never do; those of 4 bits are always in training mode. A
    hook of someone else would work when a state is made, and not when it is used, or again then.
    """
    base = attachment.base
    for module in base.model.modules():
        if module.training and not isinstance(module, nn.Linear):
            return f"the base is in training mode ({type(module).__name__}), so its states may vary"
    for block in blocks:
        if _has_other_hooks(base.blocks[block]):
            return f"block {block} of the base has hooks of others, which may change its states"
    return None


def _has_other_hooks(block: nn.Module) -> bool:
    hooks = (
        hook
        for module in block.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    )
    return any(getattr(hook, "__module__", None) != HOOKS_THAT_ONLY_READ for hook in hooks)


def _unfit(
    attachment: Attachment, contents: Contents, rows: Encoded, in_memory: int, on_disk: int
) -> str | None:
    """Why these contents cannot be kept: they are not enough, or too large."""
    trial = _trial(attachment, contents, rows)
    if not is_enough(trial):
        if contents.positions is None:
            return "blocks of the base read more of the lower ones than their states"
        return "blocks of the base read more of earlier tokens than their keys and values"
    everything = KeptStates(attachment, rows, contents, RowStore(), batch_size=1)
    size = everything.n_bytes(trial.bytes_of_token())
    if size <= in_memory + on_disk:
        return None
    return (
        f"those of all rows take {in_gb(size)}, and {in_gb(in_memory + on_disk)} are at hand "
        "(train.keep_states_gib, and the disk where rows come again)"
    )


def _trial(attachment: Attachment, contents: Contents, rows: Encoded) -> KeptStates:
    """Two rows of random tokens, the first as long as the longest of these rows, kept."""
    base = attachment.base
    longest = max(len(example.prompt) + len(example.answer) for example in rows.examples)
    n = min(max(longest, _FEWEST_TOKENS), base.context or longest)
    tokens = torch.randint(base.vocabulary, (2, n), generator=torch.Generator().manual_seed(0))
    n_answer = min(n // 3, _MOST_ANSWER_TOKENS)
    examples = []
    for row, length, more in ((0, n, 0), (1, n - n // 3, 1)):
        text, cut = tuple(tokens[row, :length].tolist()), length - n_answer + more
        examples.append(Example(text[:cut], text[cut:]))
    if contents.positions is not None:
        contents = replace(contents, positions=PositionRule(suffix=1))
    encoded = Encoded((Row((), "", "", "train"),) * 2, tuple(examples))
    return KeptStates(attachment, encoded, contents, RowStore(), batch_size=2)


@torch.no_grad()
def is_enough(trial: KeptStates) -> bool:
    """Whether the logits of two rows' answers follow from what is kept of them.

    In some families blocks share keys and values, or hand on what they chose to attend to, or have
    a state of their own instead of keys and values.
    """
    attachment = trial.attachment
    batch = collate(trial.encoded.examples, attachment.base.pad_id).to(attachment.base.device)
    rows, columns = torch.nonzero(batch.labels != IGNORED, as_tuple=True)
    sites = rows, columns - batch.labels.shape[1] - 1
    inputs = {**batch.inputs, "use_cache": False}
    whole, _ = attachment.logits(Request(None), sites, **inputs)
    try:
        short, _ = attachment.logits(Request(None), sites, **inputs, start=trial.of([0, 1]))
    except Exception:  # noqa: BLE001 - each family misses something else
        return False
    return same_logits(short, whole)
