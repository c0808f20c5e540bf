"""Answers that a base cannot write: which, why, and that nobody trains on them unawares.

Such an answer can never come back, so it never counts as right, whatever the loss says. Beside
them: texts that spell special tokens.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from csreft_core.base.text.tokenisers import unknown_words
from csreft_core.errors import SkillSetError
from csreft_core.skills.encoding import Example, special_spellings
from csreft_core.skills.formats.rows import Row

FLAG = "--unwritable-answers"


def why_lost(example: Example, response: str, tokenizer: Any) -> str:
    """Why these tokens are not the answer, in words; empty where they are."""
    if example.lost == "unknown":
        words = unknown_words([response], tokenizer)[0]
        return f"no token for {words[0]!r}" if words else "a word without a token"
    if example.lost == "changed":
        text = tokenizer.decode(example.answer[:-1], clean_up_tokenization_spaces=False)
        return f"comes back as {text[:40]!r}"
    return "its end is cut off" if example.lost == "cut" else ""


def unwritable_message(
    rows: Sequence[Row], examples: Sequence[Example], tokenizer: Any
) -> str | None:
    """How many answers this base cannot write, and an example; None where it can write all.

    Answers that `train.max_length` cuts are not among them: the base could write those.
    """
    unwritable = [
        (row, example)
        for row, example in zip(rows, examples, strict=True)
        if example.lost in ("unknown", "changed")
    ]
    if not unwritable:
        return None
    row, example = unwritable[0]
    splits = Counter(row.split for row, _ in unwritable)
    where = ", ".join(f"{n:,} in {split}" for split, n in splits.items())
    why = why_lost(example, row.response, tokenizer)
    return (
        f"{len(unwritable):,} of {len(rows):,} answers cannot be written by this base ({where}), "
        f"such as {row.response[:40]!r} ({why}); they can never come back, so they never count as "
        "right"
    )


def special_message(rows: Sequence[Row], tokenizer: Any) -> str | None:
    """How many rows spell special tokens; None where none does."""
    spellings = [tokens for tokens in special_spellings(rows, tokenizer) if tokens]
    if not spellings:
        return None
    return (
        f"{len(spellings):,} of {len(rows):,} rows spell special tokens, such as "
        f"{spellings[0][0]!r}; they are read as text, letter by letter"
    )


def check_writable(rows: Sequence[Row], examples: Sequence[Example], tokenizer: Any) -> None:
    """See that the base can write all answers.

    Raises:
        SkillSetError: it cannot; says how many, and how to train on them all the same.
    """
    message = unwritable_message(rows, examples, tokenizer)
    if message is not None:
        raise SkillSetError(
            f"{message}. Change the answers or take another base; {FLAG} trains on them all the "
            "same"
        )
