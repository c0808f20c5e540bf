"""What a prompt's answer becomes: the next token under several settings, and the dose of one gate.

The base without any adapter stands in the same tables, as the control.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from csreft_core.analysis.labels import BASE, MANUAL, NOW, ROUTER, THIS_RUN
from csreft_core.analysis.subject import Subject, beside
from csreft_core.attachment.passes import request
from csreft_core.errors import ConfigError
from csreft_core.inference.known import read_ahead
from csreft_core.inference.scoring import answer_scores, check_labels
from csreft_core.skills.batching import collate
from csreft_core.skills.encoding import Example
from csreft_core.skills.skill_set import Row, SkillSet
from csreft_core.skills.unwritable import why_lost

TABLES = ("next_token", "dose")
"""The tables of this view, `NAME_table`; the first is what `inspect` prints by default."""

KNOWN, LEARNED, BASES = "known answer", "this run's answer", "base's answer"


def next_token_table(
    subject: Subject,
    *,
    prompts: Sequence[str] = (),
    split: str = "test",
    per_skill: int | None = 1,
    gates: str = "learned",
    manual: str = "",
    others: Sequence[str] = (),
    top: int = 6,
) -> pd.DataFrame:
    """The most likely next tokens after each prompt, for the base, this run and other settings.

    Args:
        subject: The opened run.
        prompts: Texts without template; none means the rows of the split.
        split: A split of the run's skill set.
        per_skill: At most so many rows of each skill.
        gates: Gate setting of this run.
        manual: Another gate setting of this run; empty leaves it out.
        others: Folders of other runs of the same base, each under the gates it was trained with.
        top: How many of the base's and of the column's own most likely tokens are kept.

    Returns:
        For each prompt and column (`base`, `this run`, `manual gates`, names of other runs) its
        `top` tokens and those of the base: token, token_id, probability (0 to 1), rank (1 is the
        most likely), base_probability, base_rank, change (`same`, `up`, `down`, or `new` where
        the base has it beyond its `top`). Own.

    Raises:
        ConfigError: an empty or too long prompt, or a setting that does not fit.
        AdapterError: another run has no adapter, or is of another base.
    """
    if top < 1:
        raise ConfigError(f"top is {top}; it must be at least 1")
    rows = subject.asked(prompts, split, per_skill)
    settings = {BASE: None, THIS_RUN: gates} | ({MANUAL: manual} if manual else {})
    columns = dict(zip(settings, _next(subject, rows, list(settings.values())), strict=True))
    for path in others:
        other = other_subject(subject, path)
        own = [
            other.gates_as_trained(row.skills) for row in other.asked([row.prompt for row in rows])
        ]
        parts = [
            _next(other, other.asked([row.prompt]), [setting])[0]
            for row, setting in zip(rows, own, strict=True)
        ]
        columns[Path(path).name] = torch.cat(parts)
    decode = subject.engine.base.tokenizer.decode
    records = [
        (row.prompt, name, decode([token]), token, *scores)
        for i, row in enumerate(rows)
        for name, values in columns.items()
        for token, *scores in _changes(columns[BASE][i], values[i], top)
    ]
    return pd.DataFrame(
        records,
        columns=[
            "prompt",
            "column",
            "token",
            "token_id",
            "probability",
            "rank",
            "base_probability",
            "base_rank",
            "change",
        ],
    )


def other_subject(subject: Subject, path: str) -> Subject:
    """Another run; its own data is read only where its gates need labels."""
    other = beside(subject, path)
    if other.run is not None and other.trained_gates == "oracle":
        return replace(other, skill_set=other.run.skill_set())
    return replace(other, skill_set=SkillSet((), ()))


def _next(
    subject: Subject, rows: Sequence[Row], settings: Sequence[str | None]
) -> list[Float[Tensor, "prompt vocab"]]:
    """Probabilities of the token that follows each prompt, under each setting; None is the base."""
    if "oracle" in settings:
        check_labels(rows, subject.adapter.names)
    found = subject.engine.next_logits(
        subject.adapter,
        subject.prompts_of(rows),
        settings,
        template=subject.template,
        skills=[row.skills for row in rows],
    )
    return [logits.double().softmax(-1) for logits in found]


def _changes(
    base: Float[Tensor, " vocab"], here: Float[Tensor, " vocab"], top: int
) -> list[tuple[int, float, int, float, int, str]]:
    """Token, its probability and rank here and in the base, and how the rank changed."""
    leaders = [p.argsort(descending=True, stable=True)[:top].tolist() for p in (here, base)]
    changes = []
    for token in dict.fromkeys([*leaders[0], *leaders[1]]):
        rank, old = (1 + int((p > p[token]).sum()) for p in (here, base))
        moved = "same" if rank == old else "up" if rank < old else "down"
        change = "new" if old > top else moved
        changes.append((token, float(here[token]), rank, float(base[token]), old, change))
    return sorted(changes, key=lambda row: row[2])


@torch.no_grad()
def dose_table(
    subject: Subject,
    *,
    prompts: Sequence[str] = (),
    split: str = "test",
    per_skill: int | None = 1,
    gates: str = "learned",
    manual: str = "",
    subspace: str = "",
    lowest: float = -1.0,
    highest: float = 2.0,
    points: int = 25,
) -> pd.DataFrame:
    r"""How likely an answer is as one gate goes from `lowest` to `highest`; one forward a prompt.

    $\ln p(\text{answer}\mid\text{prompt}, \alpha)$, summed over the answer's tokens with its end,
    with $\alpha_i$ swept and the other gates held. Own; the router gives values in [0, 1] only,
    so the rest is extrapolation.

    Args:
        subject: The opened run.
        prompts: Texts without template; none means the rows of the split.
        split: A split of the run's skill set.
        per_skill: At most so many rows of each skill.
        gates: Gate setting whose values are marked, and held for the other gates.
        manual: Another gate setting whose values are held instead; empty leaves it out.
        subspace: Whose gate is swept; empty takes the one with the largest gate.
        lowest: Smallest gate.
        highest: Largest gate.
        points: Gates in even steps; 0, 1 and the marked gates are added.

    Returns:
        prompt, subspace (that is swept), held (`manual` or `run`: whence the other gates),
        gate (no unit), mark (`router` at the value of `gates`, `now` at that of
        `manual`, else empty), kind (`known answer`, or `this run's answer` where the data knows
        none; and as the control `base's answer`), answer, n_tokens, log_probability (nats, at
        most 0), first_token, first_probability (0 to 1), undefined (why the base cannot write the
        answer, else empty; its probabilities are then NaN).

    Raises:
        ConfigError: an empty or too long prompt, an unknown subspace, a setting that does not
            fit, or an empty range.
    """
    names = subject.adapter.names
    if subspace and subspace not in names:
        raise ConfigError(f"no subspace {subspace!r}; choose one of {', '.join(names)}")
    if not lowest < highest or points < 2:
        raise ConfigError("a dose curve needs lowest below highest and at least 2 points")
    grid = np.linspace(lowest, highest, points)
    parts = [
        _dose_of(subject, row, grid, gates, manual, subspace)
        for row in subject.asked(prompts, split, per_skill)
    ]
    return pd.concat(parts, ignore_index=True)


def _dose_of(
    subject: Subject, row: Row, grid: np.ndarray, gates: str, manual: str, subspace: str
) -> pd.DataFrame:
    router = _gates_of(subject, row, gates)
    held = _gates_of(subject, row, manual) if manual else router
    place = subject.adapter.names.index(subspace) if subspace else int(held.argmax())
    marks = {float(router[place]): ROUTER}
    if manual:
        marks.setdefault(float(held[place]), NOW)
    more = [gate for gate in (0.0, 1.0, *marks) if grid[0] <= gate <= grid[-1]]
    doses = np.unique(np.concatenate([grid, more]))
    matrix = held.repeat(len(doses), 1)
    matrix[:, place] = torch.from_numpy(doses)
    parts = []
    answers = _answers(subject, row, gates)
    for (kind, text), (example, scores) in zip(
        answers, _answer_scores(subject, row, [text for _, text in answers], matrix), strict=True
    ):
        tokenizer = subject.engine.base.tokenizer
        first = tokenizer.decode([example.answer[0]])
        why = why_lost(example, text, tokenizer)
        if why:  # other tokens than the answer's were scored
            scores = np.full_like(scores, np.nan)
        columns = {
            "prompt": row.prompt,
            "subspace": subject.adapter.names[place],
            "held": "manual" if manual and len(held) > 1 else "run",
            "gate": doses,
            "mark": [marks.get(gate, "") for gate in doses],
            "kind": kind,
            "answer": text,
            "n_tokens": len(example.answer),
            "log_probability": scores[0],
            "first_token": first,
            "first_probability": np.exp(scores[1]),
            "undefined": why,
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _gates_of(subject: Subject, row: Row, setting: str) -> Float[Tensor, " k"]:
    return subject.gates([row], setting)[0]


def _answers(subject: Subject, row: Row, gates: str) -> list[tuple[str, str]]:
    """What is scored: the known answer, else this run's; and the base's own, if it differs."""
    engine, template = subject.engine, subject.template
    target, (asked,) = (KNOWN, row.response), subject.prompts_of([row])
    if not row.response:
        answer = engine.generate(
            subject.adapter, asked, gates, template=template, skills=row.skills
        )
        target = (LEARNED, answer.text)
    control = engine.generate(None, asked, template=template).text
    return [target] if control == target[1].strip() else [target, (BASES, control)]


def _answer_scores(
    subject: Subject, row: Row, answers: list[str], matrix: Float[Tensor, "dose k"]
) -> list[tuple[Example, Float[np.ndarray, "2 dose"]]]:
    """Of each answer its tokens, and ln p of all of them and of the first, for each row of gates.

    A second copy of the answer, cut after its first token, brings the latter in the same forward.
    """
    encoded = subject.encoded([Row(row.skills, row.prompt, text, row.split) for text in answers])
    both = [
        Example(e.prompt, tokens) for e in encoded.examples for tokens in (e.answer, e.answer[:1])
    ]
    base, n, attachment = subject.engine.base, len(matrix), subject.engine.attachment
    adapter = subject.adapter
    known = read_ahead(attachment, adapter, collate(both, base.pad_id).to(base.device))
    if known is None:
        batch = collate([e for e in both for _ in range(n)], base.pad_id).to(base.device)
        nll, _, _ = answer_scores(attachment, request(adapter, matrix.repeat(len(both), 1)), batch)
    else:  # each on its own, for a long answer would pad a short one
        rows = [known.row(i).repeated(n) for i in range(len(both))]
        req = request(adapter, matrix)
        scored = [answer_scores(attachment, req, one.batch, one.start(adapter)) for one in rows]
        nll = torch.cat([of_row for of_row, _, _ in scored])
    scores = -nll.double().cpu().numpy().reshape(len(encoded.examples), 2, n)
    return list(zip(encoded.examples, scores, strict=True))
