"""Loss and exact match per skill, under any gate setting."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from csreft_core.attachment.attach import Attachment
from csreft_core.attachment.passes import Pass, Request, request
from csreft_core.attachment.start import Start
from csreft_core.base.load import Base
from csreft_core.base.text.chat_templates import resolve_template
from csreft_core.config import Config
from csreft_core.errors import ConfigError, UnsupportedModelError
from csreft_core.inference.known import read_ahead, shares
from csreft_core.reft.adapter import CSReFT
from csreft_core.reft.tuning import Tuning
from csreft_core.skills.batching import IGNORED, Batch, collate
from csreft_core.skills.encoding import Example, encode
from csreft_core.skills.skill_set import Row, skill_name

SCORED_ROWS = 256
_SENTENCE = 24  # new tokens in which a sentence around an answer has room
SCORED_AT_A_TIME = 128


@dataclass(frozen=True)
class Encoded:
    """Rows of a skill set with their tokens; `n_cut` of them were too long and are cut."""

    rows: tuple[Row, ...]
    examples: tuple[Example, ...]
    n_cut: int = 0

    def subset(self, places: Iterable[SupportsIndex]) -> "Encoded":
        """Only these rows."""
        pairs = [(self.rows[i], self.examples[i]) for i in places]
        return Encoded(tuple(row for row, _ in pairs), tuple(example for _, example in pairs))


def encode_rows(rows: Sequence[Row], base: Base, template: str, max_length: int) -> Encoded:
    """Tokenise rows, cut to `max_length` or to what the base can read, see `encoding.encode`."""
    length = min(max_length, base.context or max_length)
    examples, n_cut = encode(rows, base.tokenizer, template, length, base.vocabulary)
    return Encoded(tuple(rows), tuple(examples), n_cut)


def encode_as_configured(rows: Sequence[Row], base: Base, config: Config) -> Encoded:
    """As `encode_rows`, with the template and the length of a config.

    Raises:
        SkillSetError: the config asks for a chat template that the base does not have.
    """
    template = resolve_template(config.data.template, base.tokenizer)
    return encode_rows(rows, base, template, config.train.max_length)


def scored_rows(n: int) -> Int[np.ndarray, " taken"]:
    """Which of n validation rows a training scores: at most `SCORED_ROWS`, evenly taken."""
    return np.unique(np.linspace(0, n - 1, min(n, SCORED_ROWS)).astype(int))


def row_labels(rows: Sequence[Row], names: Sequence[str]) -> Float[Tensor, "row k"]:
    """1 where a row has the skill that a subspace is named after, else 0."""
    return torch.tensor([[float(name in row.skills) for name in names] for row in rows])


def check_labels(rows: Sequence[Row], names: Sequence[str]) -> None:
    """See that oracle gates can be made of the rows' skills.

    Raises:
        ConfigError: a row without a skill, or with one that no subspace is named after.
    """
    for row in rows:
        unknown = [skill for skill in row.skills if skill not in names]
        if unknown or not row.skills:
            which = f"skill {unknown[0]!r}" if unknown else "no skill"
            raise ConfigError(
                f"gate setting 'oracle' needs a subspace for the skill of each prompt, but "
                f"{row.prompt[:40]!r} has {which} and the subspaces are {', '.join(names)}; use "
                "'learned' or gates of your own"
            )


def answer_scores(
    attachment: Attachment, req: Request, batch: Batch, start: Start | None = None
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"], Pass]:
    """Negative log-likelihood and exactness of each answer, teacher-forced.

    Only the logits of the answer's tokens are computed.

    Args:
        attachment: Of the base.
        req: Whose edits, under which gates.
        batch: The rows.
        start: Where the forward starts, if some of it is known.

    Returns:
        Sum of $-\\ln p$ over the answer's tokens (nats), whether every token is the most likely
        one (1 or 0; greedy decoding then gives exactly this answer; each end token of the base
        ends it; 0 where the tokens are not the answer of the row, see `Batch.writable`), and the
        pass.
    """
    rows, columns = torch.nonzero(batch.labels != IGNORED, as_tuple=True)
    width = batch.labels.shape[1]
    # A token is predicted at the one before it.
    logits, forward_pass = attachment.logits(
        req,
        (rows, columns - width - 1),
        **batch.inputs,
        prompt_mask=batch.prompt_mask,
        start=start,
        use_cache=False,
    )
    logits, labels = logits.float(), batch.labels[rows, columns]
    of_token = F.cross_entropy(logits, labels, reduction="none")
    nll = of_token.new_zeros(batch.labels.shape).index_put((rows, columns), of_token).sum(1)
    wrong = torch.zeros_like(batch.labels, dtype=torch.bool)
    right = _most_likely(logits.detach(), labels)
    right |= _ends(logits.detach(), labels, columns == width - 1, attachment.base.ends)
    wrong[rows, columns] = ~right
    return nll, (~wrong.any(1) & batch.writable).float(), forward_pass


def scores_under(
    attachment: Attachment, adapter: CSReFT, batch: Batch, requests: Sequence[Request]
) -> list[tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]]:
    """As `answer_scores` under each of several requests; what no edit changes is computed once."""
    known = None
    if len(requests) > 1 or shares(batch):
        known = read_ahead(attachment, adapter, batch)
    asked = (batch, None) if known is None else (known.batch, known.start(adapter))
    return [answer_scores(attachment, req, *asked)[:2] for req in requests]


def _most_likely(
    logits: Float[Tensor, "token vocab"], labels: Int[Tensor, " token"]
) -> Bool[Tensor, " token"]:
    """Whether `argmax` gives the label: of equal logits it takes the first."""
    right = logits.gather(1, labels.unsqueeze(1)).squeeze(1) == logits.amax(1)
    # To look for the place of the largest costs far more than its value, so only where it may be.
    right[right.clone()] = logits[right].argmax(1) == labels[right]
    return right


def _ends(
    logits: Float[Tensor, "token vocab"],
    labels: Int[Tensor, " token"],
    last: Bool[Tensor, " token"],
    ends: Sequence[int],
) -> Bool[Tensor, " token"]:
    """Whether an answer ends where it should, by any of the end tokens."""
    right = torch.zeros_like(last)
    if len(ends) > 1:
        at_end = last & (labels == ends[0])
        right[at_end] = torch.isin(logits[at_end].argmax(1), labels.new_tensor(ends))
    return right


def batches(
    encoded: Encoded, pad_id: int, size: int, device: torch.device
) -> Iterator[tuple[slice, Batch]]:
    """Batches in order, with the rows that they hold."""
    for start in range(0, len(encoded.rows), size):
        part = slice(start, start + size)
        yield part, collate(encoded.examples[part], pad_id).to(device)


@torch.no_grad()
def evaluate(
    attachment: Attachment,
    adapter: Tuning | None,
    encoded: Encoded,
    *,
    gates: str | Sequence[float] = "learned",
    decode: bool = True,
    contains: bool = False,
    batch_size: int = SCORED_AT_A_TIME,
    start: Callable[[range], Start] | None = None,
) -> dict[str, Any]:
    """Score rows under a gate setting.

    Args:
        adapter: None is the base as it is; a method that changes it must be applied.
        gates: See `gate_settings`.
        decode: Exact match from greedy decoding, else from the teacher-forced tokens, which needs
            no extra forward. Both ask for every token of the answer and then an end, so they differ
            by ties that rounding breaks and by nothing else.
        contains: Score besides whether a greedy answer, let run on for a sentence, has the right
            one somewhere in it: much of what exact match misses is form. Implies `decode`.
        start: Gives what is known of rows at these places, for teacher-forced tokens.

    Returns:
        `skills`: name -> `loss` (nats per answer token), `exact_match` (0 to 1), `contains` (0 to
        1; where asked for), `n` (prompts); `mean`: the same but n, as plain means over the skills.

    Raises:
        ConfigError: a gate setting that does not fit the adapter or the rows.
        UnsupportedModelError: numbers that are too large for the base's number format.
    """
    if adapter is not None and adapter.has_gates and gates == "oracle":
        check_labels(encoded.rows, adapter.names)
    base = attachment.base
    scores: dict[str, list[tuple[float, ...]]] = {}
    for part, batch in batches(encoded, base.pad_id, batch_size, base.device):
        rows = encoded.rows[part]
        req = Request(None)
        if adapter is not None:
            req = request(adapter, gates, row_labels(rows, adapter.names))
        known = None if start is None else start(range(part.start, part.start + len(rows)))
        nll, exact, _ = answer_scores(attachment, req, batch, known)
        _check_numbers(nll, rows, base)
        columns = [nll.tolist(), batch.n_answer_tokens.double().tolist(), exact.tolist()]
        if decode or contains:
            answers = greedy_tokens(attachment, req, encoded, part, _SENTENCE if contains else 0)
            columns[2] = _exact(answers, encoded.examples[part], base.ends)
            if contains:
                columns.append(_contained(answers, rows, base.tokenizer))
        for row, *score in zip(rows, *columns, strict=True):
            scores.setdefault(skill_name(row), []).append(tuple(score))
    return summarise(scores)


def _check_numbers(nll: Float[Tensor, " batch"], rows: Sequence[Row], base: Base) -> None:
    """See that every loss is a number; fp16 ends at 65,504."""
    wrong = nll.isnan().nonzero()
    if len(wrong):
        raise UnsupportedModelError(
            f"the loss of the row with prompt {rows[int(wrong[0])].prompt[:40]!r} is no number "
            f"(nan): the base's numbers are too large for "
            f"{str(base.model.dtype).removeprefix('torch.')}, or a trained method has gone astray; "
            "use base.precision bf16 or fp32, or train with a lower train.lr"
        )


def summarise(scores: Mapping[str, Sequence[tuple[float, ...]]]) -> dict[str, Any]:
    """From (nll, answer tokens, exact, and where asked for contains) of rows to `evaluate`'s."""
    skills: dict[str, dict[str, float]] = {}
    for name, rows in scores.items():
        nll, n_tokens, *shares = (list(column) for column in zip(*rows, strict=True))
        skills[name] = {
            "loss": sum(nll) / sum(n_tokens),
            **{
                share: sum(column) / len(rows)
                for share, column in zip(("exact_match", "contains"), shares, strict=False)
            },
            "n": len(rows),
        }
    measures = [measure for measure in next(iter(skills.values())) if measure != "n"]
    mean = {
        measure: math.fsum(skill[measure] for skill in skills.values()) / len(skills)
        for measure in measures
    }
    return {"skills": skills, "mean": mean}


def greedy_tokens(
    attachment: Attachment, req: Request, encoded: Encoded, part: slice, n_more: int
) -> list[list[int]]:
    """New tokens of each row, as many as the longest answer has and some more."""
    base = attachment.base
    examples = encoded.examples[part]
    prompts = collate([Example(e.prompt, ()) for e in examples], base.pad_id).to(base.device)
    tokens, _ = attachment.generate(
        req,
        **prompts.inputs,
        generation_config=base.greedy(max(len(e.answer) for e in examples) + n_more),
    )
    return tokens[:, prompts.input_ids.shape[1] :].tolist()


def _exact(
    answers: Sequence[Sequence[int]], examples: Sequence[Example], ends: Sequence[int]
) -> list[float]:
    """1 where greedy decoding gives each token of the answer and then ends, else 0."""
    pairs = zip(answers, examples, strict=True)
    return [float(not e.lost and _gives(tokens, e.answer, ends)) for tokens, e in pairs]


def _contained(
    answers: Sequence[Sequence[int]], rows: Sequence[Row], tokenizer: Any
) -> list[float]:
    """1 where the right answer stands in what was decoded, as whole words in any case, else 0."""
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    return [float(has_words(text, row.response)) for text, row in zip(texts, rows, strict=True)]


def has_words(text: str, words: str) -> bool:
    """Whether words stand in a text side by side and whole, capitals and small letters alike."""
    place = rf"(?<!\w){re.escape(words.casefold())}(?!\w)"
    return re.search(place, text.casefold()) is not None


def _gives(tokens: Sequence[int], answer: Sequence[int], ends: Sequence[int]) -> bool:
    """Whether these new tokens are the answer and, if it has one, an end."""
    n = len(answer) - (tuple(answer[-1:]) == tuple(ends[:1]))
    same = tuple(tokens[:n]) == tuple(answer[:n])
    return same and (n == len(answer) or tokens[n] in ends)
