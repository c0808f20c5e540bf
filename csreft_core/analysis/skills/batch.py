"""A training batch as the model sees it, token by token, made by the code that training uses."""

from typing import Any

import pandas as pd

from csreft_core.analysis.skills.subject import SkillSubject
from csreft_core.reft.positions import parse_positions, token_index
from csreft_core.skills.batching import IGNORED, collate, micro_batches, step_rows
from csreft_core.skills.skill_set import skill_name

COLUMNS = ["example", "skill", "column", "token", "token_id", "part", "in_loss", "edited"]


def batch_table(subject: SkillSubject, step: int = 0) -> pd.DataFrame:
    """The tokens of one training batch: padding, prompt, answer, loss and edit.

    It is the batch that one process computes at once in that step of a new run; with
    `train.accumulate` it is the first micro-batch.

    Args:
        subject: The skill set and the settings.
        step: Of the training, counted from 0.

    Returns:
        Columns example (place in the batch, from 1), skill, column (place in the row, from 1),
        token (text), token_id, part (`padding`, `prompt` or `answer`), in_loss (whether the token
        has to be predicted), edited (whether the adapter changes the state at this token).
    """
    t, a = subject.config.train, subject.config.adapter
    rows = subject.skill_set.split("train")
    taken = micro_batches(step_rows(len(rows), t.batch_size, step, t.seed), 0, 1, t.accumulate)[0]
    chosen = [rows[i] for i in taken]
    batch = collate(subject.encoded(chosen), subject.reader.pad_id)
    real, prompt = batch.attention_mask.bool(), batch.prompt_mask
    groups = parse_positions(a.positions, tied=a.tied).groups(token_index(real), prompt.sum(1))
    records = []
    for i, row in enumerate(chosen):
        columns = zip(
            batch.input_ids[i].tolist(),
            real[i].tolist(),
            prompt[i].tolist(),
            batch.labels[i].tolist(),
            groups[i].tolist(),
            strict=True,
        )
        for column, (token, is_real, is_prompt, label, group) in enumerate(columns, start=1):
            part = "padding" if not is_real else "prompt" if is_prompt else "answer"
            records.append(
                (i + 1, skill_name(row), column, token, token, part, label != IGNORED, group >= 0)
            )
    table = pd.DataFrame(records, columns=COLUMNS)
    return table.assign(token=_texts(subject.reader.tokenizer, table["token_id"]))


def _texts(tokenizer: Any, ids: pd.Series) -> pd.Series:
    """Each token's text; decoding one token at a time keeps them apart."""
    return ids.map({token: tokenizer.decode([token]) for token in ids.unique().tolist()})
