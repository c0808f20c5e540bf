"""From rows to tokens: the template of a prompt, the tokens of prompt and answer, what is cut.

No I/O and no randomness.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from csreft_core.config import PLAIN_TEMPLATE
from csreft_core.errors import SkillSetError, UnsupportedModelError
from csreft_core.skill_formats import Row


def resolve_template(template: str, tokenizer: Any) -> str:
    """`chat` or a text with {prompt}, from what the config says.

    Args:
        template: `auto` takes the tokeniser's chat template if there is one, else the plain one.
        tokenizer: A Hugging Face tokeniser.

    Raises:
        SkillSetError: `chat` is asked for and the tokeniser has no chat template.
    """
    has_chat = bool(getattr(tokenizer, "chat_template", None))
    if template == "auto":
        return "chat" if has_chat else PLAIN_TEMPLATE
    if template == "chat" and not has_chat:
        raise SkillSetError(
            "data.template is 'chat', but the base's tokeniser has no chat template; use 'auto'"
        )
    return template


def prompt_ids(prompt: str, tokenizer: Any, template: str) -> list[int]:
    """Tokens of a prompt in its template, with the special tokens that the tokeniser sets.

    Args:
        prompt: The user's text.
        tokenizer: A Hugging Face tokeniser.
        template: A resolved template.
    """
    return _prompts_ids([prompt], tokenizer, template)[0]


def _prompts_ids(prompts: Sequence[str], tokenizer: Any, template: str) -> list[list[int]]:
    chat = template == "chat"
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        if chat
        else template.replace("{prompt}", prompt)
        for prompt in prompts
    ]
    rows = _tokens(tokenizer, texts, special=not chat)
    if chat:
        return rows
    return [_open_ended(ids, text, tokenizer) for ids, text in zip(rows, texts, strict=True)]


def _tokens(tokenizer: Any, texts: list[str], special: bool) -> list[list[int]]:
    if not texts:
        return []
    return tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"]


def _open_ended(ids: list[int], text: str, tokenizer: Any) -> list[int]:
    """Without the end token that some tokenisers append: the answer is still to come."""
    if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        return ids if text.endswith(tokenizer.eos_token) else ids[:-1]
    return ids


class Example(NamedTuple):
    """Tokens of one row; the answer ends with the end-of-text token unless it was cut."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def encode(
    rows: Sequence[Row], tokenizer: Any, template: str, max_length: int
) -> tuple[list[Example], int]:
    """Tokenise rows.

    A row that is too long loses the beginning of its prompt, after the leading `bos`, so that the
    answer stays whole; an answer that does not fit alone loses its end.

    Args:
        rows: Rows of a skill set.
        tokenizer: A Hugging Face tokeniser.
        template: A resolved template.
        max_length: Most tokens of prompt and answer together, at least 3.

    Returns:
        The examples, and how many were cut.

    Raises:
        UnsupportedModelError: the tokeniser has no end-of-text token.
    """
    if tokenizer.eos_token_id is None:
        raise UnsupportedModelError(
            "the base's tokeniser has no end-of-text token, so answers could not end; "
            "set eos_token in its tokenizer_config.json"
        )
    before = "" if template == "chat" else " "
    prompts = _prompts_ids([row.prompt for row in rows], tokenizer, template)
    answers = _tokens(tokenizer, [before + row.response for row in rows], special=False)
    examples, n_cut = [], 0
    for prompt, answer in zip(prompts, answers, strict=True):
        whole = Example(tuple(prompt), (*answer, tokenizer.eos_token_id))
        example = _cut(whole, tokenizer.bos_token_id, max_length)
        n_cut += example != whole
        examples.append(example)
    return examples, n_cut


def _cut(example: Example, bos: int | None, max_length: int) -> Example:
    prompt, answer = example.prompt, example.answer
    if len(prompt) + len(answer) <= max_length:
        return example
    head = prompt[:1] if prompt[0] == bos else ()
    least = min(len(prompt), len(head) + 1)
    answer = answer[: max_length - least]
    n_tail = max_length - len(answer) - len(head)
    tail = prompt[len(head) :]
    return Example(head + tail[len(tail) - n_tail :], answer)
