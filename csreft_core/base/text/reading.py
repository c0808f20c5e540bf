"""Texts as tokens: what users wrote is read as text, also where it spells a special token.

No I/O and no randomness.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from csreft_core.base.text.tokenisers import special_texts, tokens_of
from csreft_core.errors import SkillSetError

# No tokeniser joins all of them with what follows: letters go with letters, marks with line ends.
_ANCHORS = ("\n", "a", ".")


class ReadText(NamedTuple):
    """A text to be read.

    Attributes:
        text: All of it.
        spans: Where in it users wrote; from, to.
        prompt: The user's prompt as it was, for messages.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    prompt: str


def read_texts(texts: Sequence[ReadText], tokenizer: Any, front: list[int]) -> list[list[int]]:
    """The tokens of texts; what users wrote is text, whatever it spells.

    Args:
        texts: What to read.
        tokenizer: A Hugging Face tokeniser.
        front: Tokens that each begins with.

    Raises:
        SkillSetError: a special token that users spell and this tokeniser cannot read as text.
        UnsupportedModelError: the tokeniser gives up.
    """
    if not texts:
        return []
    special = special_texts(tokenizer)
    pattern = re.compile("|".join(map(re.escape, special))) if special else None
    all_ids = _ids(tokenizer, [text.text for text in texts])
    for place, text in enumerate(texts):
        if pattern is not None and pattern.search(_by_users(text)):
            all_ids[place] = _as_text(text, tokenizer, pattern)
    return [[*front, *ids] for ids in all_ids]


def _by_users(text: ReadText) -> str:
    """What users wrote; all of the prompt where the template has changed it."""
    words = "\n".join(text.text[a:b] for a, b in text.spans)
    return words if text.spans else f"{text.prompt}\n{words}"


def _ids(tokenizer: Any, texts: list[str], **settings: Any) -> list[list[int]]:
    return tokens_of(texts, tokenizer, **settings)["input_ids"]


def _as_text(text: ReadText, tokenizer: Any, pattern: re.Pattern[str]) -> list[int]:
    """Tokens of a text in which users spell special tokens: piece by piece, theirs as text.

    Tokenisers read what stands between special tokens by itself. Whether a piece is read as if it
    began a text differs; how, is seen on the same text without what users spell.

    Raises:
        SkillSetError: this tokeniser cannot do it.
    """
    match = pattern.search(_by_users(text))
    assert match is not None
    without = _without(text, pattern)
    direct = _ids(tokenizer, [without.text])[0]
    for begins in (True, False):
        if text.spans and _pieces(without, tokenizer, pattern, begins) == direct:
            ids = _pieces(text, tokenizer, pattern, begins)
            if _n_special(ids, tokenizer) == _n_special(direct, tokenizer):
                return ids
    raise SkillSetError(
        f"the text {text.prompt[:40]!r} or its answer spells the special token {match[0]!r}, "
        "which this base's tokeniser cannot read as text; take it out"
    )


def _n_special(ids: list[int], tokenizer: Any) -> int:
    special = set(tokenizer.convert_tokens_to_ids(list(special_texts(tokenizer))))
    return sum(i in special for i in ids)


def _without(text: ReadText, pattern: re.Pattern[str]) -> ReadText:
    """The text with a letter in place of each special token that users spell."""
    spans, parts, n, last = [], [], 0, 0
    for a, b in text.spans:
        before, own = text.text[last:a], pattern.sub("x", text.text[a:b])
        spans.append((n + len(before), n + len(before) + len(own)))
        n, last = spans[-1][1], b
        parts += [before, own]
    return ReadText("".join(parts) + text.text[last:], tuple(spans), text.prompt)


def _pieces(text: ReadText, tokenizer: Any, pattern: re.Pattern[str], begins: bool) -> list[int]:
    """The template's special tokens, and each piece between them as text.

    Args:
        text: A text.
        tokenizer: A Hugging Face tokeniser.
        pattern: How special tokens are spelled.
        begins: Whether a piece behind a special token is read as one that begins a text.
    """
    ids, last = [], 0
    places = (m.span() for m in pattern.finditer(text.text) if not _is_users(m.span(), text.spans))
    for start, end in [*places, (len(text.text), len(text.text))]:
        piece = text.text[last:start]
        if piece and (begins or last == 0):
            ids += _ids(tokenizer, [piece], split_special_tokens=True)[0]
        elif piece:
            ids += continuation_ids(piece, tokenizer)
        if end > start:
            ids.append(tokenizer.convert_tokens_to_ids(text.text[start:end]))
        last = end
    return ids


def _is_users(place: tuple[int, int], spans: Sequence[tuple[int, int]]) -> bool:
    return any(place[0] < b and place[1] > a for a, b in spans)


def continuation_ids(text: str, tokenizer: Any) -> list[int]:
    """The tokens of a text as it goes on from another: read behind one that joins with nothing."""
    for anchor in _ANCHORS:
        alone, both = _ids(tokenizer, [anchor, anchor + text], split_special_tokens=True)
        if both[: len(alone)] == alone:
            return both[len(alone) :]
    return _ids(tokenizer, [text], split_special_tokens=True)[0]
