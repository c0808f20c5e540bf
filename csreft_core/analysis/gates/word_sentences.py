"""Sentences about `words_table`: which words decide a gate."""

from math import ceil

import pandas as pd

from csreft_core.analysis.labels import GATE, GRADIENTS, LOGIT, OCCLUSION

# Smaller than this, a change of a float32 logit is rounding.
_NOTHING = 1e-5
# A word that moves every gate by less than this does not decide alone.
_SMALL = 0.05


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
    # Spearman's: of ranks. pandas would import scipy.stats for it, which takes a second.
    by_rank = only.rank()
    agreement = by_rank[OCCLUSION].corr(by_rank[GRADIENTS]) if len(only) > 2 else None
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
