"""Composition: what every pattern of open and closed gates gives on each prompt."""

from itertools import product

import pandas as pd
import torch

from csreft_core.analysis.interference.limits import MAX_SUBSPACES
from csreft_core.attachment.attach import Attachment
from csreft_core.attachment.passes import request
from csreft_core.errors import ConfigError
from csreft_core.inference.known import rows_at_once
from csreft_core.inference.scoring import Encoded, batches, scores_under, summarise
from csreft_core.reft.adapter import CSReFT
from csreft_core.skills.skill_set import skill_name


@torch.no_grad()
def pattern_table(attachment: Attachment, adapter: CSReFT, encoded: Encoded) -> pd.DataFrame:
    """Score every prompt under each of the 2^k patterns of gates that are 0 or 1.

    Returns:
        One row for each prompt and pattern: `row` (its place in `encoded`), `skill`, `pattern`
        (such as `0101`, in the order of the subspaces), `nll` (nats, over the whole answer),
        `n_tokens` (of the answer), `exact_match` (1 or 0, teacher-forced).

    Raises:
        ConfigError: more than `MAX_SUBSPACES` subspaces.
    """
    k = adapter.n_subspaces
    if k > MAX_SUBSPACES:
        raise ConfigError(
            f"gate setting 'best' tries all 2^k patterns; the adapter has {k} subspaces, at most "
            f"{MAX_SUBSPACES} are possible; use 'oracle' or 'learned'"
        )
    base, parts = attachment.base, []
    patterns = list(product((0.0, 1.0), repeat=k))
    requests = [request(adapter, pattern) for pattern in patterns]
    longest = max((len(e.prompt) + len(e.answer) for e in encoded.examples), default=1)
    size = rows_at_once(attachment, longest, 128)
    for part, batch in batches(encoded, base.pad_id, size, base.device):
        skills = [skill_name(row) for row in encoded.rows[part]]
        found = scores_under(attachment, adapter, batch, requests)
        for pattern, (nll, exact) in zip(patterns, found, strict=True):
            columns = {
                "row": range(part.start, part.start + len(skills)),
                "skill": skills,
                "pattern": "".join(str(int(gate)) for gate in pattern),
                "nll": nll.cpu().numpy(),
                "n_tokens": batch.n_answer_tokens.cpu().numpy(),
                "exact_match": exact.cpu().numpy(),
            }
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def best_patterns(table: pd.DataFrame) -> pd.DataFrame:
    """Of each prompt, the row of the pattern with the lowest loss."""
    return table.loc[table.groupby("row")["nll"].idxmin()].reset_index(drop=True)


def pattern_scores(table: pd.DataFrame) -> dict[str, dict]:
    """Loss and exact match for each skill and their means, as `scoring.evaluate` gives them.

    Args:
        table: One row for each prompt, with the columns of `pattern_table`.
    """
    columns = table[["skill", "nll", "n_tokens", "exact_match"]].itertuples(index=False, name=None)
    scores: dict[str, list[tuple[float, float, float]]] = {}
    for skill, nll, n_tokens, exact in columns:
        scores.setdefault(skill, []).append((float(nll), float(n_tokens), float(exact)))
    return summarise(scores)
