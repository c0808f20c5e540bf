"""What the tables of `answers` show, in words; every number is the table's."""

import numpy as np
import pandas as pd

from csreft_core.analysis.labels import BASE, ROUTER

# Of log-probabilities in nats: what float32 and another batch shape may change.
_SAME = 1e-3


def sentence_next_token(table: pd.DataFrame) -> str:
    """Which token each column puts first, and where the base had it; for the first prompt."""
    if table.empty:
        return "There is no prompt to ask about."
    table = table[table["prompt"] == table["prompt"].iloc[0]]
    base = table[table["column"] == BASE].iloc[0]
    said = []
    for name, part in table[table["column"] != BASE].groupby("column", sort=False):
        top = part.iloc[0]
        new = f"“{visible(top['token'])}”"
        if top["token_id"] == base["token_id"]:
            said.append(
                f"{name}: the first token stays {new} "
                f"({_percent(top['base_probability'])} → {_percent(top['probability'])})."
            )
            continue
        old = part[part["token_id"] == base["token_id"]].iloc[0]
        said.append(
            f"{name} promotes {new} from rank {top['base_rank']} "
            f"({_percent(top['base_probability'])}) to rank 1 ({_percent(top['probability'])}); "
            f"the base's first choice “{visible(old['token'])}” falls to rank {old['rank']} "
            f"({_percent(old['probability'])})."
        )
    return " ".join(said) or "Only the base was asked."


def sentence_dose(table: pd.DataFrame) -> str:
    """Whether the effect is monotone between 0 and 1, and where it is largest; first prompt."""
    if table.empty:
        return "There is no prompt to ask about."
    table = table[table["prompt"] == table["prompt"].iloc[0]]
    kinds = list(table["kind"].unique())
    main = table[table["kind"] == kinds[0]]
    if main["undefined"].iloc[0]:
        return (
            f"The base cannot write the {kinds[0]} `{visible(main['answer'].iloc[0])}` "
            f"({main['undefined'].iloc[0]}), so its probability is not defined."
        )
    best = main.loc[main["log_probability"].idxmax()]
    held = ", the others held by hand" if best["held"] == "manual" else ""
    text = (
        f"From gate 0 to 1 of {best['subspace']}{held}, the log-probability of the {kinds[0]} "
        f"“{visible(best['answer'])}” {_course(main)}. Over gates from {main['gate'].min():g} to "
        f"{main['gate'].max():g} it is largest at {best['gate']:.3g} "
        f"({best['log_probability']:.3g} nats)"
    )
    at = main[main["mark"] == ROUTER]
    if len(at):
        router = at.iloc[0]
        text += (
            f"; at the run's own gate, {router['gate']:.3f}, it is "
            f"{router['log_probability']:.3g} nats"
        )
    if len(kinds) == 1:
        return f"{text}. The base gives the same answer."
    control = table[table["kind"] == kinds[1]]
    if control["undefined"].iloc[0]:
        return f"{text}. The base's own answer cannot be scored ({control['undefined'].iloc[0]})."
    return (
        f"{text}. The base's own answer “{visible(control['answer'].iloc[0])}” {_course(control)}."
    )


def _course(curve: pd.DataFrame) -> str:
    """How a curve runs between gate 0 and gate 1."""
    inner = curve[curve["gate"].between(0, 1)].sort_values("gate")
    values = inner["log_probability"].to_numpy()
    if len(values) < 2:
        return "was not asked for between 0 and 1"
    ends = f"from {values[0]:.3g} to {values[-1]:.3g} nats"
    steps = np.diff(values)
    if values.max() - values.min() <= _SAME:
        return f"stays as it is ({values[0]:.3g} nats)"
    if (steps >= -_SAME).all():
        return f"rises all the way, {ends}"
    if (steps <= _SAME).all():
        return f"falls all the way, {ends}"
    extreme = values.argmax() if 0 < values.argmax() < len(values) - 1 else values.argmin()
    which = "largest" if extreme == values.argmax() else "smallest"
    return (
        f"is not monotone: {values[0]:.3g} nats at 0, {which} at "
        f"{inner['gate'].to_numpy()[extreme]:.3g} ({values[extreme]:.3g}), {values[-1]:.3g} at 1"
    )


def _percent(probability: float) -> str:
    if probability < 1e-5:
        return "below 0.001%"
    return f"{probability:.1%}" if probability >= 0.01 else f"{100 * probability:.2g}%"


def visible(token: str) -> str:
    """A line break made visible, and a token without a letter."""
    return token.replace("\n", "⏎") or "(empty)"
