"""Answers of a run under gates, prompt by prompt: losses, their paired intervals, greedy texts.

No files, no randomness.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from csreft_core.analysis.statistics.intervals import Units, mean_interval, ratio_statistic, spread
from csreft_core.analysis.subject import Subject
from csreft_core.attachment.passes import request
from csreft_core.inference.known import alike_together, rows_at_once
from csreft_core.inference.scoring import (
    Encoded,
    batches,
    check_labels,
    row_labels,
    scores_under,
)
from csreft_core.skills.batching import collate
from csreft_core.skills.encoding import Example
from csreft_core.skills.skill_set import Row, skill_name

BATCH = 128

Gates = str | Sequence[float] | Float[Tensor, "row k"]
"""A gate setting for all rows, or a row of gates for each."""


Scores = tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]]
r"""$-\ln p$ of each whole answer (nats, teacher-forced), and whether it is exact (1 or 0)."""


def answer_losses(subject: Subject, encoded: Encoded, gates: Gates) -> Scores:
    """The scores of rows under one setting; see `losses_under`."""
    return losses_under(subject, encoded, [gates])[0]


@torch.no_grad()
def losses_under(subject: Subject, encoded: Encoded, settings: Sequence[Gates]) -> list[Scores]:
    """The scores of rows under each of several settings; what no edit changes is computed once.

    Args:
        subject: The opened run.
        encoded: Rows with their tokens.
        settings: See `gate_settings`; a matrix gives each row its own.

    Raises:
        ConfigError: gates that do not fit the subspaces or, for `oracle`, the rows.
    """
    adapter, engine = subject.adapter, subject.engine
    if any(isinstance(gates, str) and gates == "oracle" for gates in settings):
        check_labels(encoded.rows, adapter.names)
    order = alike_together(adapter.positions, encoded.examples)
    encoded = encoded.subset(order)
    settings = [gates[order] if isinstance(gates, Tensor) else gates for gates in settings]
    parts: list[list[tuple[np.ndarray, np.ndarray]]] = [
        [(np.zeros(0), np.zeros(0))] for _ in settings
    ]
    longest = max((len(e.prompt) + len(e.answer) for e in encoded.examples), default=1)
    size = rows_at_once(engine.attachment, longest, BATCH)
    for part, batch in batches(encoded, engine.base.pad_id, size, engine.base.device):
        labels = row_labels(encoded.rows[part], adapter.names)
        own = [gates[part] if isinstance(gates, Tensor) else gates for gates in settings]
        requests = [request(adapter, gates, labels) for gates in own]
        found = scores_under(engine.attachment, adapter, batch, requests)
        for scores, (nll, right) in zip(parts, found, strict=True):
            scores.append((nll.double().cpu().numpy(), right.double().cpu().numpy()))
    back = np.argsort(order)
    return [
        (np.concatenate(nll)[back], np.concatenate(right)[back])
        for nll, right in (zip(*of, strict=True) for of in parts)
    ]


def fitting_settings(subject: Subject, rows: Sequence[Row]) -> list[str]:
    """The gate settings that this adapter and these rows allow, `off` first."""
    adapter = subject.adapter
    settings = ["off", *(f"only:{name}" for name in adapter.names)]
    if adapter.router is not None:
        settings.append("learned")
    if subject.has_labels(rows):
        settings.append("oracle")
    return settings if adapter.n_subspaces == 1 else [*settings, "uniform"]


@torch.no_grad()
def greedy_answers(subject: Subject, encoded: Encoded, gates: str) -> list[str]:
    """What the adapter answers to each prompt, at most 4 tokens longer than the right answer."""
    base = subject.engine.base
    prompts = [Example(example.prompt, ()) for example in encoded.examples]
    batch = collate(prompts, base.pad_id).to(base.device)
    labels = row_labels(encoded.rows, subject.adapter.names)
    tokens, _ = subject.engine.attachment.generate(
        request(subject.adapter, gates, labels),
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        generation_config=base.greedy(max(len(example.answer) for example in encoded.examples) + 4),
    )
    new = tokens[:, batch.input_ids.shape[1] :]
    return [text.strip() for text in base.tokenizer.batch_decode(new, skip_special_tokens=True)]


def answer_tokens(encoded: Encoded) -> Float[np.ndarray, " row"]:
    """How many tokens each answer has, with its end."""
    return np.array([len(example.answer) for example in encoded.examples], dtype=float)


def rows_by_skill(encoded: Encoded) -> dict[str, np.ndarray]:
    """Places of the rows of each skill (two joined by `+`), in the order of appearance."""
    places: dict[str, list[int]] = {}
    for place, row in enumerate(encoded.rows):
        places.setdefault(skill_name(row), []).append(place)
    return {name: np.array(rows) for name, rows in places.items()}


def subset(encoded: Encoded, places: np.ndarray) -> Encoded:
    """Only these rows."""
    return Encoded(
        tuple(encoded.rows[i] for i in places), tuple(encoded.examples[i] for i in places)
    )


def per_token(
    values: Float[np.ndarray, "setting row"], tokens: Float[np.ndarray, " row"], units: Units
) -> tuple[
    Float[np.ndarray, " setting"], Float[np.ndarray, " setting"], Float[np.ndarray, " setting"]
]:
    r"""$\sum_x v(x) / \sum_x n(x)$ over prompts x, with a 95 % interval.

    A prompt counts with all its values and its tokens, so differences of two settings stay paired.

    Args:
        values: Nats of each answer, such as the differences of two losses.
        tokens: Tokens of each answer.
        units: What the interval is over.

    Returns:
        Estimate, lower and upper end, in nats per answer token; the ends are NaN for one prompt.
    """
    ratios = spread(ratio_statistic(values, tokens), units)
    return ratios.value, *mean_interval(ratios)
