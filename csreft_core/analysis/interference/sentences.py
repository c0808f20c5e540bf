"""Sentences about the tables of `interference`, computed from the tables only."""

import math
import warnings

import numpy as np
import pandas as pd

from csreft_core.analysis.interference.index import interference_index
from csreft_core.analysis.labels import CONTROL, OTHER_RUN, RUN
from csreft_core.analysis.statistics.interval_words import over_words
from csreft_core.skills.names import is_part

FEWEST_PAIRS = 10
"""A correlation over fewer pairs comes with a warning."""

# Nats a token; a smaller change is not worth a sentence, however certain.
_FELT = 1e-3
# Exact constraints hold to float32 rounding; squared, that is far below this.
_NO_OVERLAP = 1e-6


def setting_label(setting: str) -> str:
    """A gate setting, or another run, as a figure names it."""
    if setting.startswith(OTHER_RUN):
        return f"run {setting.removeprefix(OTHER_RUN)}"
    if setting.startswith("only:"):
        return f"only {setting.removeprefix('only:')}"
    return setting


def _n(table: pd.DataFrame) -> str:
    """How many prompts a cell has: one number, or the range."""
    low, high = int(table["n"].min()), int(table["n"].max())
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def _interval(row: pd.Series) -> str:
    if math.isnan(row["low"]):
        return f"{row['change']:+.3f}"
    return f"{row['change']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"


def _highest(table: pd.DataFrame, column: str = "change") -> pd.Series:
    return table.nlargest(1, column).iloc[0]


def sentence_settings(table: pd.DataFrame) -> str:
    """What the gates as trained do, the worst single gate, and the control beside it."""
    if table.empty:
        return "There is nothing to compare."
    parts = []
    own = _main_setting(table)
    if own is not None:
        worse = own[own["low"] >= _FELT]
        mean = own["change"].mean()
        verb = "lowers" if mean < 0 else "raises"
        setting = str(own["setting"].iloc[0])
        gates = "Its one gate open" if setting.startswith("only:") else f"{setting.title()} gates"
        text = (
            f"{gates}: the adapter {verb} "
            f"the loss by {abs(mean):.3f} nats a token on the mean over {len(own)} skills "
            f"({_n(own)} prompts a cell{over_words(own)})"
        )
        if len(worse):
            text += f"; it raises the loss of {', '.join(worse['skill'])}"
        parts.append(f"{text}.")
    alone = table[table["setting"].str.startswith("only:")]
    single = alone["setting"].str.removeprefix("only:").tolist()
    foreign = alone[
        [
            not is_part(gate, skill, single)
            for gate, skill in zip(single, alone["skill"], strict=True)
        ]
    ]
    if len(foreign) and alone["setting"].nunique() > 1:
        top = _highest(foreign)
        gate = top["setting"].removeprefix("only:")
        if top["change"] > 0:
            parts.append(
                f"A wrong gate alone hurts most where {gate} answers {top['skill']}: "
                f"{_interval(top)}."
            )
        else:
            parts.append(
                f"No gate alone hurts a skill that is not its own: at most {top['change']:+.3f}."
            )
    parts += _controls(table, own)
    return " ".join(parts)


def _main_setting(table: pd.DataFrame) -> pd.DataFrame | None:
    """The rows of the first of learned, oracle, uniform or the only gate that the table has."""
    there = list(dict.fromkeys(table.loc[table["kind"] == RUN, "setting"]))
    alone = [setting for setting in there if setting.startswith("only:")]
    order = ["learned", "oracle", "uniform", *(alone if len(alone) == 1 else ())]
    chosen = next((setting for setting in order if setting in there), None)
    return None if chosen is None else table[table["setting"] == chosen]


def _controls(table: pd.DataFrame, own: pd.DataFrame | None) -> list[str]:
    """One clause for each other run: how far its loss is from that of this run."""
    clauses = []
    for name, control in table[table["kind"] == CONTROL].groupby("setting", sort=False):
        run = str(name).removeprefix(OTHER_RUN)
        text = f"The control {run} has {control['change'].mean():+.3f}"
        if own is not None:
            both = control.merge(own, on="skill", suffixes=("", "_own"))
            gap = float((both["change"] - both["change_own"]).mean())
            inside = (both["change"] >= both["low_own"]) & (both["change"] <= both["high_own"])
            text += " on the mean, " + (
                f"{abs(gap):.3f} {'above' if gap > 0 else 'below'} it"
                if abs(gap) >= _FELT
                else "the same to 0.001"
            )
            if inside.all():
                text += ", inside this run's interval for every skill"
        clauses.append(f"{text}.")
    return clauses


def sentence_examples(table: pd.DataFrame) -> str:
    """How many of the shown prompts are hurt, and how many answers are right."""
    if table.empty:
        return "There are no prompts behind this cell."
    hurt, n = int((table["change"] > 0).sum()), len(table)
    right = int((table["answer"].str.strip() == table["response"].str.strip()).sum())
    setting = setting_label(str(table["setting"].iloc[0]))
    return (
        f"Under {setting!r} the loss rises on {hurt} of the {n} shown prompts of "
        f"{table['skill'].iloc[0]}; {right} of the {n} answers are right."
    )


_WHAT = {
    "I_on": ("Opening {i} beside the own gate", "Opening no other gate"),
    "S": ("Gate {i} alone", "No foreign gate alone"),
    "A": ("Closing {i}", "Closing no foreign gate"),
}


def sentence_pairs(table: pd.DataFrame) -> str:
    """The pair that is hurt most, and the interference index."""
    if table.empty:
        return (
            "There are no pairs: this measure needs a subspace that is named after the prompts' "
            "skill. Choose S or A."
        )
    others, measure = table[~table["own"].astype(bool)], str(table["measure"].iloc[0])
    if others.empty or table["changed"].nunique() == 1:
        return "There is one subspace, so no gate of another skill could interfere."
    certain = others[others["low"] >= _FELT]
    does, nothing = _WHAT[measure]
    if certain.empty:
        text = f"{nothing} raises the loss of a skill by {_FELT} nats a token or more for certain "
        text += f"({_n(table)} prompts a cell{over_words(table)})."
    else:
        top = _highest(certain)
        verb = "hurts" if measure != "A" else "costs"
        text = (
            f"{does.format(i=top['changed'])} {verb} {top['skill']} most: {_interval(top)} nats a "
            f"token; {len(certain)} of {len(others)} pairs are at {_FELT} or above for certain "
            f"({_n(table)} prompts a cell{over_words(table)})."
        )
    return f"{text} {sentence_index(table)}"


def sentence_index(table: pd.DataFrame) -> str:
    """The interference index, or why there is none."""
    index = interference_index(table)
    if math.isnan(index):
        return "There is no interference index: no gate belongs to one of these skills."
    return (
        f"Interference index {index:.2g} (mean harm to other skills / mean own effect; 0 is none)."
    )


def sentence_bottleneck(table: pd.DataFrame) -> str:
    """Whether the router or the edit leaves more loss, from `settings_table`."""
    mean = table.groupby("setting", sort=False)["loss"].mean()
    if "learned" not in mean or "oracle" not in mean:
        missing = "learned" if "learned" not in mean else "oracle"
        return f"This run has no {missing} gates, so the two cannot be compared."
    routing = mean["learned"] - mean["oracle"]
    text = (
        f"Learned gates leave {mean['learned']:.4f} nats a token, oracle gates "
        f"{mean['oracle']:.4f} (means over {table['skill'].nunique()} skills, {_n(table)} prompts "
        "a skill)."
    )
    if routing <= -_FELT:
        return (
            f"{text} The router's gates are {-routing:.4f} better than one open gate for each "
            "skill: the router is not the bottleneck, and the subspaces are not one a skill."
        )
    which = "router" if routing > mean["oracle"] else "edit"
    cost = f"costs {routing:.4f}" if routing >= _FELT else f"costs nothing ({routing:+.4f})"
    return f"{text} Routing {cost}, so what is left is mostly due to the {which}."


def sentence_regret(table: pd.DataFrame) -> str:
    """The regret of the gates as trained, and of the best and worst control."""
    own = table[table["kind"] == RUN]
    if own.empty:
        return "There are no gates to compare."
    top = _highest(own, "regret")
    text = (
        f"The {own['setting'].iloc[0]} gates are {own['regret'].mean():+.4f} nats a token from the "
        f"best pattern of each prompt, at most {top['regret']:+.4f} (for {top['skill']}, "
        f"{_n(own)} prompts a skill)."
    )
    controls = table[table["kind"] == CONTROL].groupby("setting", sort=False)["regret"].mean()
    if len(controls):
        listed = ", ".join(f"{name} {value:+.4f}" for name, value in controls.items())
        text += f" Controls: {listed}."
    return text


def correlation(table: pd.DataFrame) -> tuple[float, float, float]:
    """Pearson's r of overlap and interference, with the 95 % interval of Fisher's transformation.

    NaN where all overlaps are the same to 1e-6, or with fewer than three pairs; the ends are NaN
    with fewer than four. Ordered pairs are not independent, for overlap is symmetric: the interval
    is too narrow rather than too wide.
    """
    # Only this figure needs it, and it takes a second to import.
    from scipy.stats import pearsonr

    x, y = table["overlap"].to_numpy(dtype=float), table["change"].to_numpy(dtype=float)
    if len(x) < 3 or np.ptp(x) < _NO_OVERLAP or np.ptp(y) == 0:
        return float("nan"), float("nan"), float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an interval that three pairs do not have
        result = pearsonr(x, y)
        low, high = result.confidence_interval(0.95)
    r = result.statistic  # pyright: ignore[reportAttributeAccessIssue] - missing in its stubs
    return float(r), float(low), float(high)


def sentence_overlap(table: pd.DataFrame) -> str:
    """Whether overlap goes with interference, or why this cannot be said."""
    if table.empty:
        return "There are no pairs of subspaces that are named after skills."
    n, hurt = len(table), int((table["low"] >= _FELT).sum())
    if np.ptp(table["overlap"].to_numpy(dtype=float)) < _NO_OVERLAP:
        value = float(table["overlap"].mean())
        shown = "0" if value < _NO_OVERLAP else f"{value:.3f}"
        rules = ", ".join(f"“{rule}”" for rule in dict.fromkeys(table["constraint"]))
        return (
            f"The scatter cannot answer: under the constraint {rules} the overlap of all {n} pairs "
            f"is {shown}. Yet {hurt} of them interfere for certain (highest change "
            f"{table['change'].max():+.3f} nats a token). Pool a run with the constraint “none” or "
            "“within” to compare."
        )
    r, low, high = correlation(table)
    span = "" if math.isnan(low) else f" [{low:+.2f}, {high:+.2f}]"
    text = (
        f"Pearson r = {r:+.2f}{span} over n = {n} ordered pairs"
        if not math.isnan(r)
        else (f"There is no correlation of {n} pairs")
    )
    runs = table["run"].nunique()
    text += f" of {runs} run{'s' if runs > 1 else ''}."
    if n < FEWEST_PAIRS:
        text += f" That is fewer than {FEWEST_PAIRS}: do not conclude from it."
    return text


def sentence_single_skill(table: pd.DataFrame) -> str:
    """What training on one skill does to the others, beside the control."""
    if table.empty:
        return "No run that learned one skill is there yet."
    parts = []
    for kind, part in table.groupby("kind", sort=False):
        others = part[~part["own"].astype(bool)]
        who = "This run's settings" if kind == RUN else "Shared control"
        n = part["changed"].nunique()
        text = f"{who} ({n} trained skill{'s' if n > 1 else ''}): "
        if others.empty:
            parts.append(f"{text}no other skill was measured.")
            continue
        top = _highest(others)
        change = f"{top['change']:+.3f} nats a token, n = {top['n']}"
        text += (
            f"training on {top['changed']} alone hurts {top['skill']} most ({change}). "
            if top["change"] > 0
            else f"training on one skill hurts no other; the highest change is {change}. "
        )
        parts.append(text + sentence_index(part))
    return " ".join(parts)
