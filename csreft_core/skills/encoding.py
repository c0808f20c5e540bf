"""From rows to tokens: prompt, answer, what is cut, and whether an answer can come back.

The tokens of a prompt are those that generation gives it, and the tokens of an answer are those
that go on from there. Texts of users are read as text, also where they spell a special token. No
I/O and no randomness.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from csreft_core.base.text.chat_templates import WrittenPrompt, written_prompts
from csreft_core.base.text.reading import ReadText, continuation_ids, read_texts
from csreft_core.base.text.tokenisers import special_texts, tokens_of, unknown_token
from csreft_core.config.templates import chat_settings
from csreft_core.errors import UnsupportedModelError
from csreft_core.skills.formats.rows import Row

Lost = Literal["", "cut", "changed", "unknown"]
_PROBES = ("a", "A", "1", ".")  # some tokenisers have no token for the first


class Example(NamedTuple):
    """Tokens of one row; the answer ends with the end-of-text token unless it was cut.

    Attributes:
        prompt: With its template.
        answer: With its end.
        lost: Why these tokens are not the answer of the row: `cut`, `changed` (they stand for
            another text), `unknown` (for none), or nothing.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    lost: Lost = ""


def prompt_ids(
    prompt: str, tokenizer: Any, template: str, vocabulary: int | None = None
) -> list[int]:
    """Tokens of a prompt in its template, with the special tokens that the tokeniser sets.

    Args:
        prompt: The user's text.
        tokenizer: A Hugging Face tokeniser.
        template: A resolved template.
        vocabulary: Rows of the base's embedding, if they are known.

    Raises:
        SkillSetError: a special token in the prompt that cannot be read as text.
        UnsupportedModelError: a chat template that fails, or tokens that the base does not have.
    """
    (written,) = written_prompts([prompt], tokenizer, template)
    (ids,) = read_texts([_read_text(written, prompt)], tokenizer, _front(tokenizer, template))
    _check_vocabulary([ids], tokenizer, vocabulary)
    return ids


def encode(
    rows: Sequence[Row],
    tokenizer: Any,
    template: str,
    max_length: int,
    vocabulary: int | None = None,
) -> tuple[list[Example], int]:
    """Tokenise rows.

    A row that is too long loses the beginning of its prompt, after the leading `bos`, so that the
    answer stays whole; an answer that does not fit alone loses its end.

    Args:
        rows: Rows of a skill set.
        tokenizer: A Hugging Face tokeniser.
        template: A resolved template.
        max_length: Most tokens of prompt and answer together, at least 3.
        vocabulary: Rows of the base's embedding, if they are known.

    Returns:
        The examples, and how many were cut.

    Raises:
        SkillSetError: a special token in a text that cannot be read as text.
        UnsupportedModelError: the tokeniser has no end-of-text token, a chat template fails, or
            the base does not have one of the tokens.
    """
    if tokenizer.eos_token_id is None:
        raise UnsupportedModelError(
            "the base's tokeniser has no end-of-text token, so answers could not end; "
            "set eos_token in its tokenizer_config.json"
        )
    front = _front(tokenizer, template)
    written = written_prompts([row.prompt for row in rows], tokenizer, template)
    texts = [_read_text(w, row.prompt) for w, row in zip(written, rows, strict=True)]
    prompts = read_texts(texts, tokenizer, front)
    answers = _answers(texts, prompts, [w.separator for w in written], rows, tokenizer, front)
    reasons = _reasons_lost(answers, rows, tokenizer)
    examples, n_cut = [], 0
    for prompt, answer, why in zip(prompts, answers, reasons, strict=True):
        whole = Example(tuple(prompt), (*answer, tokenizer.eos_token_id), why)
        example = _cut(whole, tokenizer.bos_token_id, max_length)
        n_cut += example != whole
        examples.append(example)
    _check_vocabulary([e.prompt + e.answer for e in examples], tokenizer, vocabulary)
    return examples, n_cut


def special_spellings(rows: Sequence[Row], tokenizer: Any) -> list[list[str]]:
    """The special tokens that each row's texts spell; they are read as text."""
    special = special_texts(tokenizer)
    return [
        [token for token in special if token in row.prompt or token in row.response] for row in rows
    ]


def _read_text(written: WrittenPrompt, prompt: str) -> ReadText:
    spans = ((written.start, written.end),) if written.start >= 0 else ()
    return ReadText(written.text, spans, prompt)


def _front(tokenizer: Any, template: str) -> list[int]:
    """What the tokeniser puts before every text, such as `bos`; a chat template writes it itself.

    What some put behind it, an end token, would end the prompt before its answer.
    """
    if chat_settings(template) is not None:
        return []
    for probe in _PROBES:
        whole, bare = (
            tokens_of([probe], tokenizer, add_special_tokens=special)["input_ids"][0]
            for special in (True, False)
        )
        for start in range(len(whole) if bare else 0):
            if whole[start : start + len(bare)] == bare:
                return whole[:start]
    return []


def _answers(
    prompt_texts: Sequence[ReadText],
    prompts: Sequence[list[int]],
    separators: Sequence[str],
    rows: Sequence[Row],
    tokenizer: Any,
    front: list[int],
) -> list[list[int]]:
    """The tokens of each answer as they go on from the prompt's.

    Read together, prompt and answer show them. Where a token would span the border (a prompt that
    ends in a space), the answer is read behind a text that joins with nothing.
    """
    texts = [
        ("" if row.response[:1].isspace() or not row.response else separator) + row.response
        for row, separator in zip(rows, separators, strict=True)
    ]
    whole = [
        ReadText(a.text + t, (*a.spans, (len(a.text), len(a.text) + len(t))), a.prompt)
        for a, t in zip(prompt_texts, texts, strict=True)
    ]
    all_ids = read_texts(whole, tokenizer, front)
    return [
        ids[len(prompt) :] if ids[: len(prompt)] == prompt else continuation_ids(text, tokenizer)
        for ids, prompt, text in zip(all_ids, prompts, texts, strict=True)
    ]


def _reasons_lost(answers: Sequence[list[int]], rows: Sequence[Row], tokenizer: Any) -> list[Lost]:
    """Whether the tokens of an answer stand for it; white space is not compared."""
    unknown = unknown_token(tokenizer)
    texts = tokenizer.batch_decode(
        answers, skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return [
        "unknown"
        if unknown in ids
        else "changed"
        if "".join(text.split()) != "".join(row.response.split())
        else ""
        for ids, text, row in zip(answers, texts, rows, strict=True)
    ]


def _check_vocabulary(
    all_ids: Sequence[Sequence[int]], tokenizer: Any, vocabulary: int | None
) -> None:
    """See that the embedding has a row for each token."""
    if vocabulary is None:
        return
    most = max((max(ids, default=0) for ids in all_ids), default=0)
    if most >= vocabulary:
        raise UnsupportedModelError(
            f"the tokeniser writes {tokenizer.convert_ids_to_tokens(most)!r} as token {most}, but "
            f"the base's embedding has {vocabulary:,} rows; add rows with "
            "`model.resize_token_embeddings(len(tokenizer))` and save the base again"
        )


def _cut(example: Example, bos: int | None, max_length: int) -> Example:
    prompt, answer, lost = example
    if len(prompt) + len(answer) <= max_length:
        return example
    head = prompt[:1] if prompt[0] == bos else ()
    least = min(len(prompt), len(head) + 1)
    part = answer[: max_length - least]
    n_tail = max_length - len(part) - len(head)
    tail = prompt[len(head) :]
    why = lost or ("" if part == answer else "cut")
    return Example(head + tail[len(tail) - n_tail :], part, why)
