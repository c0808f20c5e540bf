"""The tokens of a prompt as one reads them, and where each comes from.

A word of the prompt, the template around it, or a special token that the tokeniser adds.
"""

from dataclasses import dataclass
from typing import Any, Literal

from csreft_core.base.text.chat_templates import written_prompts
from csreft_core.base.text.tokenisers import tokens_of
from csreft_core.skills.encoding import prompt_ids

Kind = Literal["word", "template", "special"]


@dataclass(frozen=True)
class PromptToken:
    """One token: its id, its text with visible white space, and where it comes from."""

    id: int
    text: str
    kind: Kind


def prompt_tokens(prompt: str, tokenizer: Any, template: str) -> tuple[PromptToken, ...]:
    """The tokens of a prompt in its template, as `encoding.prompt_ids` gives them.

    Args:
        prompt: The user's text.
        tokenizer: A Hugging Face tokeniser; without offsets no template tokens are known, and all
            that are not special count as words.
        template: A resolved template.
    """
    ids = prompt_ids(prompt, tokenizer, template)
    special = set(tokenizer.all_special_ids)
    (written,) = written_prompts([prompt], tokenizer, template)
    places = _places(ids, written.text, tokenizer)
    if places is None:
        return tuple(
            PromptToken(i, visible(tokenizer.decode([i])), "special" if i in special else "word")
            for i in ids
        )
    tokens = []
    for i, (low, high) in zip(ids, places, strict=True):
        inside = low < written.end and high > written.start
        kind: Kind = "special" if i in special else ("word" if inside else "template")
        shown = written.text[low:high] if high > low and i not in special else tokenizer.decode([i])
        tokens.append(PromptToken(i, visible(shown), kind))
    return tuple(tokens)


def _places(ids: list[int], text: str, tokenizer: Any) -> list[tuple[int, int]] | None:
    """Where each token stands in the text, those before it at its beginning; None if unknown.

    Unknown where the tokeniser has no offsets, or the prompt spells a special token.
    """
    if not tokenizer.is_fast:
        return None
    encoded = tokens_of([text], tokenizer, return_offsets_mapping=True)
    read, places = encoded["input_ids"][0], encoded["offset_mapping"][0]
    n_front = len(ids) - len(read)
    if n_front < 0 or ids[n_front:] != read:
        return None
    return [(0, 0)] * n_front + places


def visible(text: str) -> str:
    """White space at the ends is left out; a token of white space alone is shown by a mark."""
    stripped = text.strip()
    return stripped or text.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣") or "(nothing)"
