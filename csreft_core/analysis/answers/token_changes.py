"""Which tokens of one text differ from another text's. No model, no randomness."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Piece:
    """A stretch of a text that is in the other text too, or is not.

    Attributes:
        text: As it stands in this text; empty where only something is missing.
        added: Whether the other text lacks it.
        missing: Tokens that the other text has in its place.
    """

    text: str
    added: bool = False
    missing: tuple[str, ...] = ()


def token_texts(tokenizer: "PreTrainedTokenizerBase", text: str) -> tuple[str, ...]:
    """The text cut where a token begins; joined, the parts are the text again.

    White space belongs to the token that follows it. A tokeniser without offsets cuts into words.
    """
    if tokenizer.is_fast:
        spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ends = {end for start, end in spans["offset_mapping"] if start < end}
    else:
        ends = {match.end() for match in re.finditer(r"\S+", text)}
    cuts = sorted({0, len(text), *ends})
    return tuple(text[start:end] for start, end in pairwise(cuts))


def token_changes(tokens: Sequence[str], others: Sequence[str]) -> tuple[Piece, ...]:
    """How a text differs from another one, by the longest matching blocks of their tokens.

    White space around a token does not count. The pieces' texts joined are the text.

    Args:
        tokens: Of the text, see `token_texts`.
        others: Of the text that it is compared with.
    """
    blocks = SequenceMatcher(
        None, [t.strip() for t in others], [t.strip() for t in tokens], autojunk=False
    ).get_opcodes()
    return tuple(
        Piece("".join(tokens[b0:b1]))
        if kind == "equal"
        else Piece("".join(tokens[b0:b1]), b1 > b0, tuple(others[a0:a1]))
        for kind, a0, a1, b0, b1 in blocks
    )
