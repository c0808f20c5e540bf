"""What a saved base knows by itself: exact match per skill without and with examples in the prompt.

These are the numbers of the model card. Uses greedy decoding and the plain template.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerFast as PocketTokenizer

from csreft_core.shipped.pocket.lexicon import SKILLS
from csreft_core.shipped.pocket.skill_sets import Row, single_skill_rows, two_skill_rows
from csreft_core.shipped.pocket.tokenizer import ANSWER, QUESTION, SPECIAL_TOKENS

#: Longest answer: the spelling of a long noun next to a French name, and the end mark.
_MAX_NEW_TOKENS = 16
_BATCH_SIZE = 128


@dataclass(frozen=True, kw_only=True)
class KnowledgeRow:
    """Exact match of one skill: share of prompts whose whole answer is right, in [0, 1]."""

    skill: str
    n: int
    zero_shot: float
    few_shot: float


def knowledge_table(
    folder: Path, *, per_skill: int = 120, shots: int = 3, seed: int = 0
) -> list[KnowledgeRow]:
    """Exact match without and with ``shots`` examples, per skill and per pair of skills.

    Single skills are asked on ``test_items``, pairs on ``test_two_skills``. Examples are other
    nouns with instructions of the same kind, drawn from ``seed``. Without examples the prompt is
    the bare question.

    Args:
        folder: A saved base.
        per_skill: Prompts of each skill at most; a pair gets at most 40.
        shots: Examples in front of the question.
        seed: Which examples are drawn.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rng = np.random.default_rng(seed)
    table = []
    for name, questions, pool in _groups(per_skill):
        zero = [question(row) for row in questions]
        few = [_with_examples(row, pool, shots, rng) for row in questions]
        answers = [str(row["response"]) for row in questions]
        table.append(
            KnowledgeRow(
                skill=name,
                n=len(questions),
                zero_shot=exact_match(model, tokenizer, zero, answers),
                few_shot=exact_match(model, tokenizer, few, answers),
            )
        )
    return table


def question(row: Row) -> str:
    """The prompt in the plain template, up to the place where the answer starts."""
    return f"{QUESTION} {row['prompt']}\n{ANSWER}"


@torch.no_grad()
def exact_match(
    model: PreTrainedModel,
    tokenizer: PocketTokenizer,
    prompts: Sequence[str],
    answers: Sequence[str],
) -> float:
    """Share of prompts, in [0, 1], whose greedy continuation is the whole answer."""
    right = 0
    for start in range(0, len(prompts), _BATCH_SIZE):
        batch = tokenizer(
            list(prompts[start : start + _BATCH_SIZE]), padding=True, return_tensors="pt"
        )
        tokens = model.generate(  # type: ignore[operator]
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=_MAX_NEW_TOKENS,
            do_sample=False,
        )
        texts = tokenizer.batch_decode(
            tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
        )
        expected = answers[start : start + _BATCH_SIZE]
        right += sum(a.rstrip() == b for a, b in zip(texts, expected, strict=True))
    return right / len(prompts)


def _groups(per_skill: int) -> list[tuple[str, list[Row], list[Row]]]:
    """Per skill and per pair: its name, the rows to ask, the rows that examples come from."""
    rows = [*single_skill_rows(SKILLS), *two_skill_rows(SKILLS)]
    groups: dict[str, tuple[list[Row], list[Row]]] = {}
    for row in rows:
        name = row["skill"] if isinstance(row["skill"], str) else " + ".join(row["skill"])
        questions, pool = groups.setdefault(name, ([], []))
        if row["split"] in ("test_items", "test_two_skills"):
            questions.append(row)
        if row["split"] in ("train", "test_two_skills"):
            pool.append(row)
    return [(name, questions[:per_skill], pool) for name, (questions, pool) in groups.items()]


def _with_examples(row: Row, pool: Sequence[Row], shots: int, rng: np.random.Generator) -> str:
    others = [other for other in pool if other["prompt"] != row["prompt"]]
    picks = rng.choice(len(others), shots, replace=False)
    examples = (
        f"{question(others[int(i)])} {others[int(i)]['response']}{SPECIAL_TOKENS['eos_token']}"
        for i in picks
    )
    return f"{''.join(f'{example} ' for example in examples)}{question(row)}"
