"""Sentences under the figures of the Skills page, each computed from its table."""

import pandas as pd

# A skill with less than half the rows of another is learned from clearly fewer examples.
_UNBALANCED = 2.0
_NAMED = 5


def sentence_counts(table: pd.DataFrame) -> str:
    """Whether the skills have as many training rows, from `counts_table`."""
    rows = table[table["split"] == "train"]
    train = dict(zip(rows["skill"].tolist(), rows["n"].tolist(), strict=True))
    if not sum(train.values()):
        return "There is no training row."
    most, least = max(train, key=train.__getitem__), min(train, key=train.__getitem__)
    others = [name for name in dict.fromkeys(table["split"]) if name != "train"]
    held_out = (
        f"Held out: {', '.join(others)}." if others else "Nothing is held out: no test can be made."
    )
    if len(train) == 1:
        return f"One skill with {_rows(train[most])} to train on. {held_out}"
    if train[most] == train[least]:
        return f"Balanced: every skill has {_rows(train[most])} to train on. {held_out}"
    if train[least] == 0:
        return f"{least} has no training row, so it cannot be learned. {held_out}"
    ratio = train[most] / train[least]
    verdict = "Not balanced" if ratio > _UNBALANCED else "Nearly balanced"
    return (
        f"{verdict}: {most} has {_rows(train[most])} to train on, {least} {train[least]:,} "
        f"({ratio:.1f} times fewer). {held_out}"
    )


def sentence_lengths(table: pd.DataFrame) -> str:
    """How many rows are cut, and what they lose, from `lengths_table`."""
    if table.empty:
        return "There is no row."
    limit, longest = int(table["limit"].iloc[0]), int(table["tokens"].max())
    cut = table[table["tokens"] > limit]
    if cut.empty:
        return (
            f"No row is cut: the longest of {len(table):,} has {longest:,} tokens, the limit is "
            f"{limit:,}."
        )
    answers = int((cut["answer_cut"] > 0).sum())
    train = int((cut["split"] == "train").sum())
    lost = int(cut["prompt_cut"].sum())
    text = (
        f"Longer than {limit:,} tokens: {len(cut):,} of {_rows(len(table))} ({train:,} in train; "
        f"the longest has {longest:,}). What is lost is the beginning of the prompt, "
        f"{_count(lost, 'token')} in all."
    )
    if answers:
        return (
            f"{text} In {_rows(answers)} even the answer does not fit: its end is lost, and the "
            "model does not see where it stops."
        )
    return f"{text} Every answer stays whole."


def sentence_unknown(table: pd.DataFrame) -> str:
    """Which words the base cannot read, from `unknown_table`."""
    if table.empty:
        return "The base has a token for every word."
    shown = ", ".join(f"“{word}”" for word in table["word"].head(_NAMED))
    more = f" and {len(table) - _NAMED:,} more" if len(table) > _NAMED else ""
    return (
        f"The base has no token for {_count(len(table), 'word')}: {shown}{more}. It reads each of "
        "them as the same unknown token, and cannot answer with them."
    )


def sentence_unwritable(table: pd.DataFrame) -> str:
    """How many answers the base cannot give, and why, from `unwritable_table`."""
    never = table[table["lost"] != "cut"]
    n_cut = len(table) - len(never)
    cut = f" {_count(n_cut, 'answer')} more are cut by train.max_length." if n_cut else ""
    if never.empty:
        return f"The base can write every answer.{cut}"
    first = never.iloc[0]
    return (
        f"The base cannot write {_count(len(never), 'answer')}, such as “{first['response'][:40]}” "
        f"({first['why']}): they can never come back, so they never count as right, and training "
        f"on them has to be asked for twice.{cut}"
    )


def sentence_special(table: pd.DataFrame) -> str:
    """Which special tokens the texts spell, from `special_table`."""
    if table.empty:
        return "No text spells a special token."
    top = table.head(_NAMED).to_dict("records")
    shown = ", ".join(f"“{row['token']}” ({_rows(row['n'])})" for row in top)
    return (
        f"Texts spell special tokens: {shown}. They are read as text, letter by letter, and do "
        "not end an answer or a turn."
    )


def sentence_batch(table: pd.DataFrame) -> str:
    """What is predicted and what is edited, from `batch_table`."""
    real = table[table["part"] != "padding"]
    n, loss = len(real), int(table["in_loss"].sum())
    edited = int(table["edited"].sum())
    return (
        f"{_count(table['example'].nunique(), 'example')}, {n:,} tokens: the loss counts {loss:,} "
        f"of them ({loss / max(1, n):.0%}), all in answers; the adapter edits the state at "
        f"{edited:,}. {1 - n / max(1, len(table)):.0%} of the batch is padding."
    )


def sentence_leaks(table: pd.DataFrame) -> str:
    """Whether test rows were trained on, from `leaks_table`."""
    twins = table["exact"] + table["near"]
    into_tests = table["split"].str.startswith("test") & (table["other"] == "train")
    leaked, tested = int(twins[into_tests].sum()), int(table.loc[into_tests, "n"].sum())
    inside = int(twins[table["split"] == table["other"]].sum())
    conflicts = int(table.loc[table["split"] == table["other"], "conflicts"].sum())
    parts = [
        f"No test row was trained on ({tested:,} compared)."
        if not leaked
        else f"Leakage: a training row asks the same as {leaked:,} of {tested:,} test rows."
    ]
    if not tested:
        parts = ["There is no test split to leak into."]
    if inside:
        parts.append(f"{_rows(inside)} have a twin in their own split.")
    if conflicts:
        parts.append(f"{_rows(conflicts)} ask the same as another and answer differently.")
    if not inside and not conflicts:
        parts.append("No prompt stands twice in a split.")
    return " ".join(parts)


def sentence_similarity(table: pd.DataFrame) -> str:
    """Which two skills look most alike, next to each among itself, from `similarity_table`."""
    between = table[table["skill"] != table["other"]]
    if between.empty:
        return "One skill: there is nothing to compare it with."
    known = between[between["similarity"].notna()]
    if known.empty:
        return "No two skills have words to compare."
    top = max(known.to_dict("records"), key=lambda row: row["similarity"])
    own = table[table["skill"] == table["other"]]
    within = dict(zip(own["skill"].tolist(), own["similarity"].tolist(), strict=True))
    a, b = str(top["skill"]), str(top["other"])
    single = [name for name in (a, b) if pd.isna(within[name])]
    if single:
        return (
            f"Most alike are {a} and {b}: {top['similarity']:.2f}. {' and '.join(single)} with a "
            "single row cannot be compared with itself, so nothing says whether this is much."
        )
    same = top["similarity"] >= min(within[a], within[b])
    verdict = "by their words they could be one skill" if same else "their words tell them apart"
    return (
        f"Most alike are {a} and {b}: {top['similarity']:.2f}, where prompts of {a} are "
        f"{within[a]:.2f} alike and prompts of {b} {within[b]:.2f}; {verdict}."
    )


def _rows(n: int) -> str:
    return _count(n, "row")


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
