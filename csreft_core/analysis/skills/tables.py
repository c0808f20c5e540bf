"""Tables about a skill set: skills, balance, lengths in tokens, and what the base cannot write."""

from collections import Counter

import pandas as pd

from csreft_core.analysis.skills.subject import SkillSubject
from csreft_core.base.text.tokenisers import unknown_words
from csreft_core.skills.encoding import special_spellings
from csreft_core.skills.skill_set import Row, skill_name
from csreft_core.skills.unwritable import why_lost

_NO_LIMIT = 1_000_000_000


def skills_table(subject: SkillSubject) -> pd.DataFrame:
    """Each skill with the number of its rows and its first row as an example.

    A row that needs two skills counts under `a+b`, a row without one under `unlabelled`.

    Returns:
        Columns skill, n, one column of counts for each split that the set has, prompt, response.
    """
    splits = subject.skill_set.splits
    rows: dict[str, list[Row]] = {}
    for row in subject.skill_set.rows:
        rows.setdefault(skill_name(row), []).append(row)
    records = []
    for name, own in rows.items():
        counts = Counter(row.split for row in own)
        records.append(
            {"skill": name, "n": len(own)}
            | {split: counts[split] for split in splits}
            | {"prompt": own[0].prompt, "response": own[0].response}
        )
    return pd.DataFrame(records, columns=["skill", "n", *splits, "prompt", "response"])


def counts_table(subject: SkillSubject) -> pd.DataFrame:
    """How many rows each skill has in each split.

    A row that needs two skills counts for both, so the sum may be more than the number of rows.

    Returns:
        Columns skill, split, n (rows).
    """
    skill_set = subject.skill_set
    counts = Counter(
        (name, row.split) for row in skill_set.rows for name in row.skills or ("unlabelled",)
    )
    names = [
        *skill_set.names,
        *(["unlabelled"] if any(n == "unlabelled" for n, _ in counts) else []),
    ]
    records = [(name, split, counts[name, split]) for name in names for split in skill_set.splits]
    return pd.DataFrame(records, columns=["skill", "split", "n"])


def lengths_table(subject: SkillSubject) -> pd.DataFrame:
    """The length of each row in tokens of the base, and what training would cut off.

    A row longer than the limit loses the beginning of its prompt, behind a leading special token;
    at least one token of the prompt stays, so an answer that alone is too long loses its end.

    Returns:
        Columns row (from 1), skill, split, prompt_tokens (with the template), answer_tokens (with
        the end token), tokens, limit, prompt_cut and answer_cut (tokens lost).
    """
    rows, limit = subject.skill_set.rows, subject.max_length
    whole = subject.encoded(rows, _NO_LIMIT)
    kept = subject.encoded(rows, limit)
    return pd.DataFrame(
        {
            "row": range(1, len(rows) + 1),
            "skill": [skill_name(row) for row in rows],
            "split": [row.split for row in rows],
            "prompt_tokens": [len(example.prompt) for example in whole],
            "answer_tokens": [len(example.answer) for example in whole],
            "tokens": [len(example.prompt) + len(example.answer) for example in whole],
            "limit": limit,
            "prompt_cut": [len(a.prompt) - len(b.prompt) for a, b in zip(whole, kept, strict=True)],
            "answer_cut": [len(a.answer) - len(b.answer) for a, b in zip(whole, kept, strict=True)],
        }
    )


def unwritable_table(subject: SkillSubject) -> pd.DataFrame:
    """The answers that this base cannot give as they stand.

    Returns:
        Columns row (from 1), skill, split, prompt, response, lost (`unknown`: a word without a
        token; `changed`: the tokens stand for another text; `cut`: by `train.max_length`) and why,
        in words.
    """
    rows, tokenizer = subject.skill_set.rows, subject.reader.tokenizer
    records = [
        (
            place,
            skill_name(row),
            row.split,
            row.prompt,
            row.response,
            example.lost,
            why_lost(example, row.response, tokenizer),
        )
        for place, (row, example) in enumerate(zip(rows, subject.encoded(rows), strict=True), 1)
        if example.lost
    ]
    columns = ["row", "skill", "split", "prompt", "response", "lost", "why"]
    return pd.DataFrame(records, columns=columns)


def special_table(subject: SkillSubject) -> pd.DataFrame:
    """Special tokens of the base's tokeniser that texts spell, most rows first.

    Returns:
        Columns token, n (rows that spell it), skill and prompt (of the first of them).
    """
    first: dict[str, Row] = {}
    counts: Counter[str] = Counter()
    rows = subject.skill_set.rows
    for row, tokens in zip(rows, special_spellings(rows, subject.reader.tokenizer), strict=True):
        counts.update(tokens)
        for token in tokens:
            first.setdefault(token, row)
    records = [(t, n, skill_name(first[t]), first[t].prompt) for t, n in counts.most_common()]
    return pd.DataFrame(records, columns=["token", "n", "skill", "prompt"])


def unknown_table(subject: SkillSubject) -> pd.DataFrame:
    """Words of prompts and answers that the base's tokeniser has no token for, most rows first.

    Returns:
        Columns word, n (rows that have it), skill and prompt (of the first of them). Empty where
        the tokeniser can write every text.
    """
    tokenizer, rows = subject.reader.tokenizer, subject.skill_set.rows
    first: dict[str, Row] = {}
    counts: Counter[str] = Counter()
    texts = [f"{row.prompt}\n{row.response}" for row in rows]
    for row, words in zip(rows, unknown_words(texts, tokenizer), strict=True):
        counts.update(words)
        for word in words:
            first.setdefault(word, row)
    records = [
        (word, n, skill_name(first[word]), first[word].prompt) for word, n in counts.most_common()
    ]
    return pd.DataFrame(records, columns=["word", "n", "skill", "prompt"])
