"""What an English run answers to prompts as students write them, and what its base knows."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from csreft_core.attachment.passes import Request
from csreft_core.config import PLAIN_TEMPLATE
from csreft_core.inference.engine import Engine
from csreft_core.inference.scoring import encode_rows, greedy_tokens, has_words
from csreft_core.reft.adapter import CSReFT
from csreft_core.shipped.english.tables import StudentPrompt, read_student_prompts
from csreft_core.skills.skill_set import Row

_NEW_TOKENS = 16
_BATCH_SIZE = 32
_LONGEST = 2048


class StudentAnswer(NamedTuple):
    """A student's prompt with what a run answers.

    Attributes:
        skill: That the prompt needs.
        prompt: As typed.
        answer: Of the run, with its own gates.
        expected: What is right.
        right: The answer is one of these and nothing else, but for capitals and a full stop.
    """

    skill: str
    prompt: str
    answer: str
    expected: str
    right: bool


class Knowledge(NamedTuple):
    """What a base answers after examples of a skill.

    Attributes:
        skill: Of the examples and of the question.
        exact_match: Share of first lines that are the answer, in [0, 1].
        contains: Share of first lines that have it in them.
        n: Prompts.
    """

    skill: str
    exact_match: float
    contains: float
    n: int


def student_answers(engine: Engine, adapter: CSReFT, template: str) -> Iterator[StudentAnswer]:
    """Each of the forty prompts, answered greedily with the gates of the router."""
    for prompt in read_student_prompts():
        answer = engine.generate(
            adapter, prompt.prompt, template=template, max_new_tokens=_NEW_TOKENS
        ).text.strip()
        yield StudentAnswer(
            prompt.skill,
            prompt.prompt,
            answer,
            " or ".join(prompt.answers),
            is_right(answer, prompt),
        )


def is_right(answer: str, prompt: StudentPrompt) -> bool:
    """Whether an answer is one of the right ones, but for capitals and a full stop."""
    plain = answer.strip().rstrip(".").casefold()
    return plain in (right.casefold() for right in prompt.answers)


@torch.no_grad()
def few_shot_knowledge(
    engine: Engine, rows: Sequence[Row], examples: Sequence[Row], shots: int = 3, seed: int = 0
) -> Iterator[Knowledge]:
    """What the base alone answers, skill by skill, after examples of the same skill.

    Args:
        engine: Of the base.
        rows: The questions.
        examples: Where the examples are drawn from.
        shots: How many stand before each question.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    for skill in dict.fromkeys(row.skills[0] for row in rows if len(row.skills) == 1):
        pool = [row for row in examples if row.skills == (skill,)]
        asked = [row for row in rows if row.skills == (skill,)]
        chosen = [rng.choice(len(pool), shots, replace=False) for _ in asked]
        prompts = [
            row._replace(prompt=_with_examples(row, [pool[place] for place in places]))
            for row, places in zip(asked, chosen, strict=True)
        ]
        pairs = list(zip(_first_lines(engine, prompts), asked, strict=True))
        exact = sum(line == row.response for line, row in pairs) / len(pairs)
        contains = sum(has_words(line, row.response) for line, row in pairs) / len(pairs)
        yield Knowledge(skill, exact, contains, len(pairs))


def _first_lines(engine: Engine, rows: Sequence[Row]) -> Iterator[str]:
    """The first line of what the base alone writes after each prompt."""
    attachment, base = engine.attachment, engine.base
    encoded = encode_rows(rows, base, "{prompt}", base.context or _LONGEST)
    for start in range(0, len(rows), _BATCH_SIZE):
        part = slice(start, start + _BATCH_SIZE)
        tokens = greedy_tokens(attachment, Request(None), encoded, part, _NEW_TOKENS)
        for text in base.tokenizer.batch_decode(tokens, skip_special_tokens=True):
            yield text.strip().partition("\n")[0].strip()


def _with_examples(row: Row, examples: Sequence[Row]) -> str:
    """The examples with their answers and then the question, each in the plain template."""
    shown = [
        f"{PLAIN_TEMPLATE.replace('{prompt}', one.prompt)} {one.response}\n\n" for one in examples
    ]
    return "".join(shown) + PLAIN_TEMPLATE.replace("{prompt}", row.prompt)
