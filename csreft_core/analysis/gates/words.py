"""Which tokens of a prompt decide its gates: taking each away, and integrated gradients."""

from collections.abc import Sequence
from math import ceil

import pandas as pd

from csreft_core.analysis.gates.attributions import gradients, occlusion, tokens_left
from csreft_core.analysis.labels import GATE, GRADIENTS, LOGIT, OCCLUSION
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
# Smaller than this, a change of a float32 logit is rounding.
_NOTHING = 1e-5
# A word that moves every gate by less than this does not decide alone.
_SMALL = 0.05


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


def strongest(table: pd.DataFrame) -> str:
    """The subspace whose gate is largest for the first prompt of a `words_table`."""
    gates = table[(table["quantity"] == GATE) & (table["prompt"] == table["prompt"].iloc[0])]
    return str(gates.loc[gates["full"].idxmax(), "subspace"]) if len(gates) else ""


def no_word_decides(table: pd.DataFrame) -> bool:
    """Whether taking any word away leaves every gate as it is, up to rounding."""
    words = table[(table["kind"] == "word") & (table["method"] == OCCLUSION)]
    return bool((words["value"].abs() <= _NOTHING).all())


def sentence_word_map(table: pd.DataFrame) -> str:
    """Which word moves which gate most when it is taken away."""
    removed = table[(table["method"] == OCCLUSION) & (table["quantity"] == GATE)]
    if removed.empty:
        return "There is no token to take away."
    words = removed[removed["kind"] == "word"]
    if no_word_decides(table):
        return _no_word(table)
    top = words.iloc[int(words["value"].abs().to_numpy().argmax())]
    if abs(top["value"]) < _SMALL:
        return (
            f"No single word decides: without any one of the {words['position'].nunique()} words, "
            f"no gate moves by more than {_up(abs(top['value']))}. The logits say which count."
        )
    return (
        f"Without “{top['token']}” the gate {top['subspace']} {_change_words(top)}: of "
        f"{words['position'].nunique()} words it moves a gate most."
    )


def _up(value: float) -> str:
    """Three decimals, rounded up, so that "at most" stays true."""
    return f"{ceil(value * 1000) / 1000:.3f}"


def _change_words(row: pd.Series) -> str:
    verb = "falls" if row["value"] > 0 else "rises"
    return f"{verb} from {row['full']:.3f} to {row['reference']:.3f}"


def _no_word(table: pd.DataFrame) -> str:
    words = table[(table["kind"] == "word") & (table["method"] == OCCLUSION)]
    others = table[(table["kind"] != "word") & (table["value"].abs() > _NOTHING)]
    names = list(dict.fromkeys(others.sort_values("position")["token"]))
    n, largest = words["position"].nunique(), words["value"].abs().max()
    rest = (
        f" Only {' and '.join(f'“{name}”' for name in names[:3])} moves them, and that stands in "
        "every prompt."
        if names
        else ""
    )
    exactly = "exactly as it is" if largest == 0 else f"as it is (change at most {largest:.1g})"
    return f"No word decides: taking away any of the {n} words leaves every gate {exactly}.{rest}"


def sentence_words(table: pd.DataFrame, subspace: str | None = None) -> str:
    """What both methods say about one gate, and whether they agree.

    Args:
        table: `words_table` of one prompt.
        subspace: None takes the largest gate.
    """
    if table.empty:
        return "There is no token to take away."
    if no_word_decides(table):
        return _no_word(table)
    name = subspace or strongest(table)
    part = table[(table["subspace"] == name) & (table["quantity"] == LOGIT)]
    both = part.pivot_table(index="position", columns="method", values="value", sort=True)
    words = part.drop_duplicates("position").sort_values("position")
    is_word = (words["kind"] == "word").to_numpy()
    only, tokens = both[is_word], words["token"].to_numpy()[is_word]
    tops = {m: tokens[int(only[m].abs().to_numpy().argmax())] for m in (OCCLUSION, GRADIENTS)}
    if tops[OCCLUSION] == tops[GRADIENTS]:
        text = f"Both methods: “{tops[OCCLUSION]}” counts most for the gate {name}."
    else:
        text = (
            f"For the gate {name}, taking away “{tops[OCCLUSION]}” changes the logit most; "
            f"integrated gradients give most to “{tops[GRADIENTS]}”."
        )
    agreement = only[OCCLUSION].corr(only[GRADIENTS], method="spearman") if len(only) > 2 else None
    ranks = (
        ""
        if agreement is None or pd.isna(agreement)
        else (f" Rank correlation of the methods over {len(only)} words: {agreement:.2f}.")
    )
    return f"{text}{ranks} {_complete(part)}"


def _complete(part: pd.DataFrame) -> str:
    """The completeness check of integrated gradients, in words."""
    gradients = part[part["method"] == GRADIENTS]
    change = float(gradients["full"].iloc[0] - gradients["reference"].iloc[0])
    total = float(gradients["value"].sum())
    return (
        f"The attributions sum to {total:.3f} of a logit difference of {change:.3f} "
        f"(gap {abs(total - change):.1g})."
    )
