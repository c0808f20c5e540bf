"""The tokens of a prompt as one reads them, and where each comes from.

A word of the prompt, the template around it, or a special token that the tokeniser adds.
"""

from dataclasses import dataclass
from typing import Any, Literal

from csreft_core.encoding import prompt_ids

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
        tokenizer: A Hugging Face tokeniser; one without offsets knows no template tokens, and all
            that are not special count as words.
        template: A resolved template.
    """
    ids = prompt_ids(prompt, tokenizer, template)
    special = set(tokenizer.all_special_ids)
    if not tokenizer.is_fast:
        return tuple(
            PromptToken(i, visible(tokenizer.decode([i])), "special" if i in special else "word")
            for i in ids
        )
    text, start, end = _placed(prompt, tokenizer, template)
    encoded = tokenizer(
        text, add_special_tokens=template != "chat", return_offsets_mapping=True, verbose=False
    )
    found = []
    # An end token that the tokeniser appends is not part of the prompt: `ids` has been cut.
    for i, (low, high) in zip(ids, encoded["offset_mapping"], strict=False):
        inside = low < end and high > start
        kind: Kind = "special" if i in special else ("word" if inside else "template")
        shown = text[low:high] if high > low and i not in special else tokenizer.decode([i])
        found.append(PromptToken(i, visible(shown), kind))
    return tuple(found)


def _placed(prompt: str, tokenizer: Any, template: str) -> tuple[str, int, int]:
    """The whole text, and where the prompt begins and ends in it."""
    if template != "chat":
        start = max(0, template.find("{prompt}"))
        return template.replace("{prompt}", prompt), start, start + len(prompt)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    # Chat templates may strip the message.
    start = text.rfind(prompt.strip())
    return text, start, start + len(prompt.strip())


def visible(text: str) -> str:
    """White space at the ends is left out; a token of white space alone is shown by a mark."""
    stripped = text.strip()
    return stripped or text.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣") or "(nothing)"
