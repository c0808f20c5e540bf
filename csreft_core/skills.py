"""Skill sets: rows with their skills and splits, and the way from a row to a batch of tokens.

A skill set is read and written here; single files and their forms are read by `skill_formats`.
The only randomness is that of explicit seeds.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from csreft_core.config import ASSETS, PLAIN_TEMPLATE
from csreft_core.errors import SkillSetError, UnsupportedModelError
from csreft_core.files import write_atomic
from csreft_core.skill_formats import SPLITS, ReadRow, Row, read_rows
from csreft_core.skill_splits import check_leaks, with_splits

TEST_SPLITS = ("test_items", "test_paraphrases", "test_both")
SHIPPED = ("four", "six", "eight", "two_skills")
IGNORED = -100

__all__ = [
    "IGNORED",
    "SHIPPED",
    "SPLITS",
    "TEST_SPLITS",
    "Batch",
    "Example",
    "Row",
    "SkillSet",
    "as_cells",
    "as_csv",
    "as_jsonl",
    "checked_set",
    "collate",
    "encode",
    "epoch_order",
    "prompt_ids",
    "read_skills",
    "resolve_template",
    "write_skills",
]


@dataclass(frozen=True)
class SkillSet:
    """Rows in the order of their file.

    Attributes:
        rows: All rows of all splits.
        names: The skills, in the order of first appearance.
    """

    rows: tuple[Row, ...]
    names: tuple[str, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have rows, in the order of `SPLITS`."""
        present = {row.split for row in self.rows}
        return tuple(split for split in SPLITS if split in present)

    def split(self, name: str) -> tuple[Row, ...]:
        """Rows of one split; `test` joins the three test splits, `all` is everything.

        Raises:
            SkillSetError: no such split, or no row in it.
        """
        if name not in (*SPLITS, "test", "all"):
            raise SkillSetError(
                f"unknown split {name!r}; choose one of {', '.join((*SPLITS, 'test', 'all'))}"
            )
        wanted = {"test": TEST_SPLITS, "all": SPLITS}.get(name, (name,))
        rows = tuple(row for row in self.rows if row.split in wanted)
        if not rows:
            raise SkillSetError(
                f"the skill set has no row in the split {name!r}; "
                f"it has {', '.join(self.splits) or 'no rows at all'}"
            )
        return rows

    def labels(self, rows: Sequence[Row]) -> Float[np.ndarray, "row k"]:
        """1 for each skill of a row, else 0; a column for each of `names`.

        Raises:
            SkillSetError: a row is unlabelled, or has a skill that is not in `names`.
        """
        labels = np.zeros((len(rows), len(self.names)), np.float32)
        for i, row in enumerate(rows):
            if not row.skills or not set(row.skills) <= set(self.names):
                raise SkillSetError(
                    f"the row with prompt {row.prompt[:40]!r} has "
                    f"{'no skill' if not row.skills else 'an unknown skill'}; label every row, "
                    "or train without oracle gates and with router.supervision 0"
                )
            labels[i, [self.names.index(name) for name in row.skills]] = 1
        return labels


def read_skills(path: str, skill_column: str = "skill", seed: int = 0) -> SkillSet:
    """Read a skill set and check it.

    Rows without a split get one: 80 % train, 10 % validation, 10 % test_items, by a shuffle inside
    each skill; rows with the same prompt stay together.

    Args:
        path: `four`, `six`, `eight` or `two_skills` (shipped), a `.jsonl`, `.json` or `.csv` file,
            or a folder with one file a skill.
        skill_column: Name of the field that holds the skill.
        seed: Of the shuffle.

    Raises:
        SkillSetError: names the file, the line and the field of what is wrong.
    """
    file = ASSETS / "skills" / f"{path}.jsonl" if path in SHIPPED else Path(path)
    if path not in SHIPPED and not file.exists():
        raise SkillSetError(
            f"{path}: no such skill set; give a file, a folder or one of {', '.join(SHIPPED)}"
        )
    return checked_set(read_rows(file, skill_column), path, seed)


def checked_set(read: list[ReadRow], source: str, seed: int = 0) -> SkillSet:
    """A skill set of rows that were read, with a split for each.

    Args:
        read: The rows.
        source: Where they come from, for messages.
        seed: Of the shuffle that gives splits to rows that have none.

    Raises:
        SkillSetError: a test row has the prompt of a training row, or there is none to train on.
    """
    read = with_splits(read, seed)
    check_leaks(read)
    rows = tuple(item.row for item in read)
    if not any(row.split == "train" for row in rows):
        raise SkillSetError(f"{source}: no row has the split 'train'; training needs some")
    return SkillSet(rows, tuple(dict.fromkeys(name for row in rows for name in row.skills)))


def write_skills(skill_set: SkillSet, path: Path) -> None:
    """Write native JSONL, atomically; `read_skills` gives the same skill set back."""
    write_atomic(path, as_jsonl(skill_set.rows))


def as_jsonl(rows: Sequence[Row]) -> str:
    """Rows in the project's own form, one JSON object a line."""
    return "".join(_line(row) + "\n" for row in rows)


def as_csv(rows: Sequence[Row]) -> str:
    """Rows as CSV; several skills, or a name that looks like a list, stand in a cell as JSON."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("skill", "prompt", "response", "split"))
    writer.writerows(as_cells(row) for row in rows)
    return table.getvalue()


def as_cells(row: Row) -> tuple[str, str, str, str]:
    """Skill, prompt, response and split as the cells of a table; a list of skills is JSON."""
    names = row.skills
    plain = len(names) == 1 and not names[0].startswith("[")
    listed = json.dumps(names, ensure_ascii=False) if names else ""
    return names[0] if plain else listed, row.prompt, row.response, row.split


def _line(row: Row) -> str:
    record: dict[str, Any] = {}
    if row.skills:
        record["skill"] = row.skills[0] if len(row.skills) == 1 else list(row.skills)
    record.update(prompt=row.prompt, response=row.response, split=row.split)
    return json.dumps(record, ensure_ascii=False)


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


@dataclass(frozen=True)
class Batch:
    """Left-padded examples, so that all answers end in the last column.

    Attributes:
        input_ids: Prompt and answer; the padding token elsewhere.
        attention_mask: 1 on prompt and answer.
        prompt_mask: 1 on the prompt.
        labels: `input_ids` on the answer, -100 elsewhere; not shifted, as Hugging Face has it.
        n_answer_tokens: Answer tokens of each example.
    """

    input_ids: Int[Tensor, "batch seq"]
    attention_mask: Int[Tensor, "batch seq"]
    prompt_mask: Int[Tensor, "batch seq"]
    labels: Int[Tensor, "batch seq"]
    n_answer_tokens: Int[Tensor, " batch"]

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on a device."""
        return Batch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """Put examples into one batch.

    Args:
        examples: At least one; an answer may be empty.
        pad_id: Token for the padding, on the left.
    """
    width = max(len(e.prompt) + len(e.answer) for e in examples)
    ids = np.full((len(examples), width), pad_id, np.int64)
    labels = np.full_like(ids, IGNORED)
    mask, prompt_mask = np.zeros_like(ids), np.zeros_like(ids)
    for i, e in enumerate(examples):
        first, n = width - len(e.prompt) - len(e.answer), len(e.prompt)
        ids[i, first:] = e.prompt + e.answer
        mask[i, first:] = 1
        prompt_mask[i, first : first + n] = 1
        labels[i, first + n :] = e.answer
    lengths = np.array([len(e.answer) for e in examples], np.int64)
    return Batch(*map(torch.from_numpy, (ids, mask, prompt_mask, labels, lengths)))


def epoch_order(n: int, seed: int, epoch: int) -> Int[np.ndarray, " n"]:
    """The order of `n` rows in an epoch: a permutation, a function of its arguments alone."""
    return np.random.default_rng((seed, epoch)).permutation(n)
