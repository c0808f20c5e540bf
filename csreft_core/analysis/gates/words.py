"""Which tokens of a prompt decide its gates: taking each away, and integrated gradients."""

from collections.abc import Sequence

import pandas as pd

from csreft_core.analysis.gates.attributions import gradients, occlusion, tokens_left
from csreft_core.analysis.prompt_tokens import prompt_tokens
from csreft_core.analysis.subject import Subject
from csreft_core.errors import ConfigError

TABLES = ("words",)
"""The tables of this view, `NAME_table`; the first is what `inspect` prints by default."""

COLUMNS = (
    "prompt",
    "position",
    "token",
    "kind",
    "subspace",
    "method",
    "quantity",
    "value",
    "full",
    "reference",
)


def words_table(
    subject: Subject,
    *,
    prompts: Sequence[str] = (),
    split: str = "test",
    per_skill: int | None = 1,
    steps: int = 100,
) -> pd.DataFrame:
    r"""What each token does to each gate, by two methods; positive opens the gate.

    `occlusion`: value of the whole prompt minus that of the prompt without this token (the token
    is taken out, so the prompt is one token shorter). `integrated gradients` (Sundararajan et al.
    2017, through captum): the attribution of a router *logit* to the embedding of each token, on
    the straight line from a prompt whose every token is the mean of the vocabulary, summed over
    the width; complete, so over the tokens it sums to full - reference, up to the steps. (From
    zero, the norms of the router and of the base would make the line all but a jump.) Where the
    router decides for each token, the gates are those of the last prompt token.

    Args:
        subject: The opened run; it needs a router.
        prompts: Texts without template; none means rows of the split.
        split: A split of the run's skill set.
        per_skill: At most so many rows of each skill.
        steps: Points on the line (Gauss-Legendre).

    Returns:
        Columns prompt, position (0-based), token, kind (`word`, `template`, `special`), subspace,
        method, quantity (`gate`, or `logit`: before the gate's squashing, divided by the
        temperature), value (of the quantity, no unit), full (quantity of the whole prompt),
        reference (without the token; for integrated gradients at the start of the line).

    Raises:
        ConfigError: no router, or an empty or too long prompt.
        SkillSetError: the split is unknown or empty.
    """
    if subject.adapter.router is None:
        raise ConfigError("this adapter has no router, so no word decides its gates")
    rows = subject.asked(prompts, split, per_skill)
    read = subject.prompts_of(rows)
    # Also checks the prompts.
    subject.engine.gates(subject.adapter, read, template=subject.template)
    parts = []
    for row, prompt in zip(rows, read, strict=True):
        tokens = prompt_tokens(row.prompt, subject.engine.base.tokenizer, subject.template)
        tokens = tokens if isinstance(prompt, str) else tokens_left(tokens, prompt)
        parts += occlusion(subject, row.prompt, tokens)
        parts += gradients(subject, row.prompt, tokens, steps)
    return pd.DataFrame(parts, columns=list(COLUMNS))
