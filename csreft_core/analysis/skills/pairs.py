"""Rows that say the same, within a split and between splits, and skills that look alike."""

import unicodedata
from collections import Counter, defaultdict

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer

from csreft_core.analysis.skills.subject import SkillSubject
from csreft_core.skills.skill_set import Row, skill_name

# At the ends of a word they say nothing; within one they may (1.5, -3).
_MARKS = ".,;:!?\"'“”‘’«»()[]…"


def normal_form(text: str) -> str:
    """A text without capitals, marks around words, and extra white space (Unicode NFKC)."""
    words = unicodedata.normalize("NFKC", text).casefold().split()
    return " ".join(filter(None, (word.strip(_MARKS) for word in words)))


def twins_table(subject: SkillSubject) -> pd.DataFrame:
    """Rows whose prompt another row has too, exactly or after `normal_form`.

    Returns:
        Columns group (from 1), row (from 1), split, skill, prompt, response, same (`exact` if
        another row has the very same prompt, else `near`), conflict (whether the group has
        different answers).
    """
    rows = subject.skill_set.rows
    groups: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[normal_form(row.prompt)].append(i)
    records = []
    several = [places for places in groups.values() if len(places) > 1]
    for group, places in enumerate(several, start=1):
        counts = Counter(rows[i].prompt for i in places)
        conflict = len({normal_form(rows[i].response) for i in places}) > 1
        for i in places:
            row = rows[i]
            same = "exact" if counts[row.prompt] > 1 else "near"
            records.append(
                (group, i + 1, row.split, skill_name(row), row.prompt, row.response, same, conflict)
            )
    columns = ["group", "row", "split", "skill", "prompt", "response", "same", "conflict"]
    return pd.DataFrame(records, columns=columns)


def leaks_table(subject: SkillSubject) -> pd.DataFrame:
    """For each pair of splits: how many rows of the first have a twin in the second.

    Returns:
        Columns split, other, n (rows of `split`), exact (with the very same prompt in `other`),
        near (the same after `normal_form` only), conflicts (with a twin that answers differently).
        Within one split a row is not its own twin.
    """
    rows, splits = subject.skill_set.rows, subject.skill_set.splits
    keys = [(normal_form(row.prompt), normal_form(row.response)) for row in rows]
    exact = Counter((row.split, row.prompt) for row in rows)
    near = Counter((row.split, prompt) for row, (prompt, _) in zip(rows, keys, strict=True))
    alike = Counter((row.split, key) for row, key in zip(rows, keys, strict=True))
    twins: dict[tuple[str, str], np.ndarray] = {
        (one, other): np.zeros(4, int) for one in splits for other in splits
    }
    for row, key in zip(rows, keys, strict=True):
        for other in splits:
            itself = row.split == other
            is_exact = exact[other, row.prompt] > itself
            is_near = near[other, key[0]] > itself and not is_exact
            differs = near[other, key[0]] > alike[other, key]
            twins[row.split, other] += (1, is_exact, is_near, differs)
    records = [(*pair, *counts.tolist()) for pair, counts in twins.items()]
    return pd.DataFrame(records, columns=["split", "other", "n", "exact", "near", "conflicts"])


def similarity_table(subject: SkillSubject) -> pd.DataFrame:
    r"""How alike the prompts of two skills are, next to those of one skill among themselves.

    $$ S_{ab} = \frac{1}{|P_{ab}|} \sum_{(i,j) \in P_{ab}} \cos(x_i, x_j) $$

    with x the tf-idf vector of a prompt's words and P_ab all pairs of one row of a and one of b;
    for a = b, of two different rows. S lies in [0, 1]. The diagonal is the control: two skills
    whose prompts are as alike as the prompts of one skill are told apart by nothing but chance
    words. Rows that need two skills are left out where the set has others.

    Returns:
        Columns skill, other, similarity (no unit), n and n_other (rows). NaN for a skill with one
        row among itself.
    """
    of_skill: dict[str, list[int]] = defaultdict(list)
    every = subject.skill_set.rows
    rows = tuple(row for row in every if len(row.skills) < 2) or every
    for i, row in enumerate(rows):
        of_skill[skill_name(row)].append(i)
    vectors = _vectors(rows)
    sums = {
        name: np.asarray(vectors[places].sum(axis=0)).ravel() for name, places in of_skill.items()
    }
    records = []
    for name, own in sums.items():
        n = len(of_skill[name])
        for other, its in sums.items():
            m = len(of_skill[other])
            # Rows without a word have no direction; all others have a cosine of 1 with themselves.
            itself = float(vectors[of_skill[name]].power(2).sum()) if name == other else 0.0
            pairs = n * (n - 1) if name == other else n * m
            mean = (float(own @ its) - itself) / pairs if pairs else float("nan")
            records.append((name, other, min(1.0, max(0.0, mean)) if pairs else mean, n, m))
    return pd.DataFrame(records, columns=["skill", "other", "similarity", "n", "n_other"])


def _vectors(rows: tuple[Row, ...]):
    return TfidfVectorizer(token_pattern=r"(?u)\b\w+\b|[^\w\s]").fit_transform(
        row.prompt for row in rows
    )
