"""One prompt under all 2^k patterns of open and closed gates: what each gate adds to the answer.

No files, no randomness.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.special import log_softmax, rel_entr

from csreft_core.analysis.interference.limits import MAX_SUBSPACES
from csreft_core.analysis.interference.prompt_forward import answer_under
from csreft_core.analysis.labels import BASE, IN_USE, PATTERN
from csreft_core.analysis.latest import Latest
from csreft_core.analysis.statistics.shapley import place_of, shapley_interactions, shapley_values
from csreft_core.analysis.subject import Subject
from csreft_core.errors import ConfigError
from csreft_core.inference.scoring import check_labels
from csreft_core.skills.skill_set import Row

TABLES = ("patterns", "shapley", "interactions", "tokens")
"""The tables of this view, `NAME_table`; the first is what `inspect` prints by default."""

PATTERN_COLUMNS = ("prompt", "answer", "setting", "kind", "n_open", "open", "kl", "log_probability")
SHAPLEY_COLUMNS = ("prompt", "answer", "subspace", "shapley", "alone", "closed", "all")
INTERACTION_COLUMNS = ("prompt", "answer", "first", "second", "interaction")
TOKEN_COLUMNS = (
    "prompt",
    "token",
    "rank_base",
    "rank_adapter",
    "rise",
    "p_base",
    "p_adapter",
)

_LATEST = Latest[tuple[np.ndarray, np.ndarray]](2)


def patterns_table(
    subject: Subject,
    *,
    prompts: Sequence[str] = (),
    answer: str = "",
    gates: str = "learned",
) -> pd.DataFrame:
    r"""All $2^k$ patterns of gates that are 0 or 1, in one batched forward, and the gates in use.

    The divergence is $D(p_S \| p_\emptyset) = \sum_t p_S(t) \ln (p_S(t) / p_\emptyset(t))$ of the
    first token after the prompt; closed gates are the base, so it is exactly 0 there.

    Args:
        subject: The opened run.
        prompts: One prompt, without template; none means the first row of the test split.
        answer: Whose probability is asked for; empty means the known answer, else what the
            adapter answers.
        gates: The gate setting in use, shown beside the patterns.

    Returns:
        Columns prompt, answer, setting (`1010` in the order of the subspaces, or the setting in
        use), kind (`base`, `pattern` or `in use`), n_open, open (the open gates by name, joined by
        ` + `), kl (nats, at least 0), log_probability (of the whole answer with its end, nats).

    Raises:
        ConfigError: not one prompt, an empty or too long one, or more than 8 subspaces.
    """
    row = _answer_row(subject, prompts, answer, gates)
    names = subject.adapter.names
    patterns = _patterns(len(names))
    nll, logits = _under_patterns(subject, row)
    own_nll, own_logits = answer_under(subject, row, gates)
    log_p = log_softmax(np.concatenate([logits, own_logits]), axis=1)
    p = np.exp(log_p)
    # Rounding can leave a divergence of equal distributions a hair below 0.
    kl = rel_entr(p, p[:1]).sum(1).clip(min=0)
    rows = [
        (
            row.prompt,
            row.response,
            _code(pattern),
            PATTERN if any(pattern) else BASE,
            int(sum(pattern)),
            _open_names(pattern, names),
        )
        for pattern in patterns
    ]
    rows.append((row.prompt, row.response, gates, IN_USE, -1, gates))
    values = zip(kl.tolist(), (-np.concatenate([nll, own_nll])).tolist(), strict=True)
    return pd.DataFrame(
        [(*names, *pair) for names, pair in zip(rows, values, strict=True)],
        columns=list(PATTERN_COLUMNS),
    )


def shapley_table(
    subject: Subject, *, prompts: Sequence[str] = (), answer: str = ""
) -> pd.DataFrame:
    r"""The exact Shapley value of each gate on the answer's log-probability.

    $$ \phi_i = \sum_{S \subseteq [k] \setminus i} \frac{|S|!\,(k - |S| - 1)!}{k!}
       \big(f(S \cup i) - f(S)\big), \qquad f(S) = \ln p(\text{answer} \mid \alpha = 1_S) $$

    The mean, over all orders of opening the gates, of what gate i adds (Shapley, 1953). The values
    sum to f(all open) - f(all closed).

    Args:
        subject: The opened run.
        prompts: One prompt, without template; none means the first row of the test split.
        answer: As in `patterns_table`.

    Returns:
        Columns prompt, answer, subspace, shapley (nats), alone (f of this gate alone - f of none,
        nats: what it would be without the other gates), closed and all (f with all gates closed
        and with all open, nats).

    Raises:
        ConfigError: as `patterns_table`.
    """
    row, names, f = _values(subject, prompts, answer)
    rows = [
        (row.prompt, row.response, name, shapley, f[place_of(i, len(names))] - f[0], f[0], f[-1])
        for i, (name, shapley) in enumerate(zip(names, shapley_values(f), strict=True))
    ]
    return pd.DataFrame(rows, columns=list(SHAPLEY_COLUMNS))


def interactions_table(
    subject: Subject, *, prompts: Sequence[str] = (), answer: str = ""
) -> pd.DataFrame:
    r"""The Shapley interaction index of each pair of gates on the answer's log-probability.

    $$ I_{ij} = \sum_{S \subseteq [k] \setminus ij} \frac{|S|!\,(k - |S| - 2)!}{(k - 1)!}
       \big(f(S \cup ij) - f(S \cup i) - f(S \cup j) + f(S)\big) $$

    Above 0 the two gates do more together than apart, below 0 less (Grabisch and Roubens, 1999).

    Args:
        subject: The opened run.
        prompts: One prompt, without template; none means the first row of the test split.
        answer: As in `patterns_table`.

    Returns:
        Columns prompt, answer, first, second (each unordered pair once), interaction (nats). Empty
        with one subspace.

    Raises:
        ConfigError: as `patterns_table`.
    """
    row, names, f = _values(subject, prompts, answer)
    index = shapley_interactions(f)
    rows = [
        (row.prompt, row.response, names[i], names[j], index[i, j])
        for i in range(len(names))
        for j in range(i + 1, len(names))
    ]
    return pd.DataFrame(rows, columns=list(INTERACTION_COLUMNS))


def tokens_table(
    subject: Subject, *, prompts: Sequence[str] = (), gates: str = "learned", most: int = 6
) -> pd.DataFrame:
    """The likeliest first tokens of the answer, without and with the adapter.

    Args:
        subject: The opened run.
        prompts: One prompt, without template; none means the first row of the test split.
        gates: The gate setting in use.
        most: So many tokens of each side.

    Returns:
        Columns prompt, token, rank_base and rank_adapter (1 is the likeliest), rise (places gained
        by the adapter), p_base and p_adapter (probabilities), in the order of rank_adapter.

    Raises:
        ConfigError: not one prompt, an empty or too long one, or a setting that does not fit.
    """
    row = _one_row(subject, prompts, gates)
    found = subject.engine.next_logits(
        subject.adapter,
        subject.prompts_of([row]),
        (None, gates),
        template=subject.template,
        skills=[row.skills] if gates == "oracle" else None,
    )
    sides = [logits[0].double().numpy() for logits in found]
    p = [np.exp(log_softmax(logits)) for logits in sides]
    ranks = [np.argsort(np.argsort(-logits, kind="stable"), kind="stable") + 1 for logits in sides]
    chosen = np.flatnonzero((ranks[0] <= most) | (ranks[1] <= most))
    chosen = chosen[np.argsort(ranks[1][chosen])]
    texts = subject.engine.base.tokenizer.batch_decode([[int(t)] for t in chosen])
    rows = [
        (
            row.prompt,
            text,
            int(ranks[0][t]),
            int(ranks[1][t]),
            int(ranks[0][t] - ranks[1][t]),
            float(p[0][t]),
            float(p[1][t]),
        )
        for text, t in zip(texts, chosen, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(TOKEN_COLUMNS))


def _under_patterns(
    subject: Subject, row: Row
) -> tuple[Float[np.ndarray, " pattern"], Float[np.ndarray, "pattern vocab"]]:
    """`answer_under` all patterns; three tables of the page are made from it."""
    patterns = torch.tensor(_patterns(subject.adapter.n_subspaces))
    return _LATEST.of(subject, row, lambda: answer_under(subject, row, patterns))


def _patterns(k: int) -> list[tuple[float, ...]]:
    return list(product((0.0, 1.0), repeat=k))


def _code(pattern: Sequence[float]) -> str:
    return "".join(str(int(gate)) for gate in pattern)


def _open_names(pattern: Sequence[float], names: Sequence[str]) -> str:
    return " + ".join(name for name, gate in zip(names, pattern, strict=True) if gate) or "none"


def _values(
    subject: Subject, prompts: Sequence[str], answer: str
) -> tuple[Row, tuple[str, ...], Float[np.ndarray, " pattern"]]:
    """The row, the names of the gates, and f of every pattern."""
    row = _answer_row(subject, prompts, answer, "learned")
    names = subject.adapter.names
    nll, _ = _under_patterns(subject, row)
    return row, names, -nll


def _one_row(subject: Subject, prompts: Sequence[str], gates: str) -> Row:
    rows = subject.asked(prompts)
    if len(prompts) > 1:
        raise ConfigError(f"this table is about one prompt, got {len(prompts)}; give one")
    row = rows[0]
    if not row.prompt.strip():
        raise ConfigError("the prompt is empty; write a question")
    if gates == "oracle":
        check_labels([row], subject.adapter.names)
    return row


def _answer_row(subject: Subject, prompts: Sequence[str], answer: str, gates: str) -> Row:
    """The prompt with the answer to score: given, known, or what the adapter answers."""
    k = subject.adapter.n_subspaces
    if k > MAX_SUBSPACES:
        raise ConfigError(
            f"the adapter has {k} subspaces, so 2^{k} patterns; all patterns are tried up to "
            f"{MAX_SUBSPACES} subspaces"
        )
    row = _one_row(subject, prompts, gates)
    text = answer.strip() or row.response.strip()
    if not text:
        text = subject.engine.generate(
            subject.adapter,
            subject.prompts_of([row])[0],
            subject.gates_as_trained(row.skills),
            template=subject.template,
            skills=row.skills,
        ).text
    if not text:
        raise ConfigError("there is no answer to score: the adapter gives an empty one; write one")
    return Row(row.skills, row.prompt, text, row.split)
