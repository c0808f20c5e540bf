"""Which base a run belongs to: what is recorded of a base, and how two records compare.

A record is one text: weights, description, tokeniser and chat template as hashes, so that a message
can say which of them differs. Its last part is the record of the old rule, by which runs of earlier
versions are known. No I/O and no tensors; `base.fingerprint` computes the parts.
"""

import re
from typing import NamedTuple

from csreft_core.config import known_bases
from csreft_core.errors import AdapterError

_LENGTHS = (32, 12, 12, 12, 16)
_RECORD = re.compile("-".join(["2", *(f"([0-9a-f]{{{n}}})" for n in _LENGTHS)]))
_OLD = re.compile(r"[0-9a-f]{64}")
_WORDS = ("weights", "values in config.json", "tokens (its tokeniser)", "chat template")


class Identity(NamedTuple):
    """The parts of a record, as hexadecimal hashes.

    Attributes:
        weights: Of all weights.
        description: Of what `config.json` says.
        tokenizer: Of the vocabulary and of how texts are split.
        template: Of the chat template.
        old: By the rule of earlier versions: the weights' names and the embedding.
    """

    weights: str
    description: str
    tokenizer: str
    template: str
    old: str

    def text(self) -> str:
        """The record."""
        return "-".join(["2", *(part[:n] for part, n in zip(self, _LENGTHS, strict=True))])


def differences(recorded: str, here: str, *, chat: bool = True) -> tuple[str, ...]:
    """What differs between two records, in words; nothing where they are of the same base.

    Args:
        recorded: Of a run or an adapter; it may be one of the old rule.
        here: Of a base.
        chat: Whether the chat template matters: it does where prompts are put into it.
    """
    if recorded == here:
        return ()
    one, other = _RECORD.fullmatch(recorded), _RECORD.fullmatch(here)
    if one is None or other is None:
        same = _old(recorded) == _old(here) is not None
        return () if same else ("weights (as far as the record of an earlier version tells)",)
    n = 4 if chat else 3
    return tuple(
        word
        for word, a, b in zip(_WORDS[:n], one.groups()[:n], other.groups()[:n], strict=True)
        if a != b
    )


def check_base(recorded: str, here: str, base_id: str, *, chat: bool = True) -> None:
    """Refuse what was trained on another base.

    Args:
        recorded: Of an adapter or another trained method.
        here: Of the base at hand.
        base_id: Its name.
        chat: Whether prompts are put into the chat template.

    Raises:
        AdapterError: they are not the same; says what differs.
    """
    parts = differences(recorded, here, chat=chat)
    if parts:
        raise AdapterError(
            f"the adapter was trained on a base with other {' and '.join(parts)} than {base_id!r} "
            "has; load the base it was trained on, or train again"
        )


def old_record(recorded: str, base_id: str) -> str:
    """What to say of a record by the old rule, which is no proof; else nothing.

    Of a base with a name there has been one only.
    """
    known = known_bases().get(base_id)
    if (known is not None and not known.config) or _OLD.fullmatch(recorded) is None:
        return ""
    return (
        "the run was saved by an earlier version, which recorded the names of the base's weights "
        f"and its embedding only: they are those of {base_id!r}; nothing else was compared"
    )


def _old(record: str) -> str | None:
    new = _RECORD.fullmatch(record)
    if new is not None:
        return new[5]
    return record[:16] if _OLD.fullmatch(record) else None
