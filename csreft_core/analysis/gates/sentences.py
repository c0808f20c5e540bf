"""Sentences under the figures of the Router page, each computed from its table."""

from collections.abc import Sequence

import pandas as pd

from csreft_core.analysis.gates.ranges import gate_range
from csreft_core.analysis.labels import HARD
from csreft_core.analysis.statistics.interval_words import over_words

# float32 gates of equal inputs may differ in the last bits when the batch shape differs.
_SAME = 1e-6
# Nats; a smaller difference of losses is no finding, however sure.
_LITTLE = 0.01


def sentence_prompt_gates(table: pd.DataFrame, threshold: float = 0.5) -> str:
    """What the gates of one prompt say.

    Args:
        table: `gates_table` of one prompt.
        threshold: A gate above it is open.
    """
    if table.empty:
        return "This adapter has no gates."
    gates = table.set_index("subspace")["gate"]
    top = str(gates.idxmax())
    opened = list(gates[gates > threshold].index)
    if not opened:
        return f"No gate is open: the largest, {top}, is {gates[top]:.3f}."
    if len(opened) == 1:
        others = gates.drop(top)
        rest = f"; every other gate is {_at_most(others.max())}" if len(others) else ""
        return f"The router opens {top} ({gates[top]:.3f}){rest}."
    if len(opened) == len(gates):
        return f"All {len(gates)} gates are open; the largest is {top} ({gates[top]:.3f})."
    return f"The router opens {_list(opened)}; the largest gate is {top} ({gates[top]:.3f})."


def sentence_gate_range(table: pd.DataFrame) -> str:
    """Whether the gates depend on the prompt, from `gates_table` of several prompts."""
    if table.empty:
        return "There are no gates to compare."
    ranges = gate_range(table).set_index("subspace")["range"]
    n = table["prompt"].nunique()
    top = str(ranges.idxmax())
    if ranges[top] <= _SAME:
        return (
            f"The gates ignore the prompt: over {n} prompts, max - min of every gate is "
            f"{f'at most {ranges[top]:.1g}' if ranges[top] else 'exactly 0'}."
        )
    low = str(ranges.idxmin())
    return (
        f"The gates depend on the prompt: over {n} prompts, max - min is {ranges[top]:.3f} for "
        f"{top} and at least {ranges[low]:.3f} for every gate."
    )


def sentence_tokens(table: pd.DataFrame) -> str:
    """Where the strongest gate changes along the prompt, from `tokens_table` of one prompt."""
    if table.empty:
        return "This router decides once for the whole prompt, so there is nothing for a token."
    wide = table.pivot_table(index="position", columns="subspace", values="gate", sort=False)
    first, last = wide.idxmax(axis=1).iloc[0], wide.idxmax(axis=1).iloc[-1]
    changes = int((wide.idxmax(axis=1) != wide.idxmax(axis=1).shift()).sum()) - 1
    text = f"Over {len(wide)} tokens the strongest gate changes {_times(changes)}"
    return f"{text}: it begins with {first} and ends with {last} ({wide[last].iloc[-1]:.3f})."


def sentence_difference(table: pd.DataFrame) -> str:
    """Which gate an edit of the prompt moved most, from `difference_table`."""
    if table.empty:
        return "There are no gates to compare."
    top = table.iloc[int(table["change"].abs().to_numpy().argmax())]
    if abs(top["change"]) <= _SAME:
        return f"No gate moved: the change of every gate is at most {_SAME:.0e}."
    return (
        f"{top['subspace']} moved most: from {top['pinned']:.3f} to {top['now']:.3f} "
        f"({top['change']:+.3f})."
    )


def sentence_distribution(table: pd.DataFrame) -> str:
    """Whether the gates depend on the prompt, and those of other runs on the same prompts."""
    if table.empty:
        return "There are no gates to compare."
    sources = list(dict.fromkeys(table["source"]))
    text = sentence_gate_range(table[table["source"] == sources[0]])
    for name in sources[1:]:
        if name not in ("oracle", "uniform"):
            largest = gate_range(table[table["source"] == name])["range"].max()
            verb = "ignore the prompt" if largest <= _SAME else "depend on it"
            text += f" Control: the gates of {name} {verb} (largest max - min {largest:.3g})."
    return text


def sentence_means(table: pd.DataFrame) -> str:
    """Whether each true skill has its own strongest gate, from `means_table`."""
    if table.empty:
        return "There are no gates to compare."
    own = table[table["source"] == table["source"].iloc[0]]
    wide = own.pivot_table(index="skill", columns="subspace", values="gate", sort=False)
    if float((wide.max() - wide.min()).max()) <= _SAME:
        return "Every skill gets the same mean gates: the rows of the table are equal."
    tops = wide.idxmax(axis=1)
    if tops.nunique() == len(tops):
        pairs = ", ".join(
            f"{skill} ({wide.loc[skill, top]:.3f})"
            if skill == top
            else f"{top} for {skill} ({wide.loc[skill, top]:.3f})"
            for skill, top in tops.items()
        )
        return f"Each skill has a strongest gate of its own: {pairs}."
    shared = tops.value_counts()
    return (
        f"The strongest gate does not tell the skills apart: {shared.index[0]} is it for "
        f"{shared.iloc[0]} of {len(tops)} skills."
    )


def sentence_patterns(table: pd.DataFrame) -> str:
    """How the open gates go with the true skill, from `patterns_table`."""
    if table.empty:
        return "There are no gates to compare."
    own = table[table["source"] == table["source"].iloc[0]]
    n, shown = int(own["n"].sum()), list(dict.fromkeys(own["pattern"]))
    if len(shown) == 1:
        what = "no gate opens" if shown[0] == "none" else f"the same gates open ({shown[0]})"
        return f"For every one of the {n} prompts {what}: open gates tell nothing about the skill."
    right = int(own.loc[own["pattern"] == own["skill"], "n"].sum())
    return (
        f"{right} of {n} prompts open the gate of their own skill and no other; "
        f"{len(shown)} different patterns occur."
    )


def sentence_information(table: pd.DataFrame) -> str:
    """What the open gates tell about the skill, from `metrics_table`."""
    if table.empty:
        return "There are no gates to compare."
    text = []
    for i, (name, part) in enumerate(table.groupby("source", sort=False)):
        rows: dict[str, dict] = {row["metric"]: row for row in part.to_dict("records")}
        nmi = rows["nmi"]
        if i == 0:
            text.append(
                f"Open gates and true skill: NMI {_estimate(nmi)}, matched accuracy "
                f"{_estimate(rows['matched_accuracy'])}, from {nmi['n']} prompts"
                f"{over_words(part)}.{_probe_words(nmi, rows.get('probe_accuracy'))}"
            )
        elif name not in ("oracle", "uniform"):
            read = rows.get("probe_accuracy")
            probe = f", probe {read['value']:.3f}" if read else ""
            text.append(f"Control, {name}: NMI {nmi['value']:.3f}{probe}.")
    return " ".join(text)


def _probe_words(nmi: dict, read: dict | None) -> str:
    """What a probe reads from the soft gates, beside what the open ones tell."""
    if read is None:
        return ""
    text = f" A linear probe reads the skill from the soft gates with {_estimate(read)}"
    if nmi["high"] < 0.5 and read["low"] > 0.5:
        return f"{text}: they carry the skill, and the threshold hides it, so they do not select."
    return f"{text}."


def sentence_profile(table: pd.DataFrame) -> str:
    """How sure the gates are, and which never or always open, from `metrics_table`."""
    if table.empty:
        return "There are no gates to compare."
    own = table[table["source"] == table["source"].iloc[0]]
    whole = own[own["subspace"] == ""].set_index("metric")["value"]
    share = own[own["metric"] == "open_share"].set_index("subspace")["value"]
    dead, always = list(share.index[share == 0]), list(share.index[share == 1])
    return (
        f"Mean entropy {whole['mean_entropy']:.3f} of at most 0.693 nats a gate; "
        f"{whole['active_count']:.2f} gates are open on average. "
        f"Never open: {_list(dead) if dead else 'none'}; "
        f"always open: {_list(always) if always else 'none'}."
    )


def sentence_coactivation(table: pd.DataFrame) -> str:
    """Which two gates are open together most often, from `coactivation_table`."""
    if table.empty:
        return "There are no gates to compare."
    own = table[table["source"] == table["source"].iloc[0]]
    pairs = own[own["subspace"] != own["other"]]
    if pairs.empty:
        return "There is one gate only."
    top = pairs.loc[pairs["both_open"].idxmax()]
    if top["both_open"] == 0:
        return f"No two gates are ever open together, over {int(top['n'])} prompts."
    return (
        f"Most often open together: {top['subspace']} and {top['other']}, in "
        f"{top['both_open']:.1%} of {int(top['n'])} prompts."
    )


def sentence_settings(table: pd.DataFrame) -> str:
    """Whether the router or the edit limits the answers, from `settings_table`."""
    if table.empty:
        return "There are no scores to compare."
    rows: dict[str, dict] = {row["source"]: row for row in table.to_dict("records")}
    first, own = next(iter(rows.items()))
    text = (
        f"{first.capitalize()} gates: loss {own['loss']:.3f} nats, {own['exact_match']:.1%} "
        f"{_ends(own)}right (n = {own['n']}{over_words(table)})."
    )
    if first == "learned" and "oracle" in rows:
        text += f" {_bottleneck(rows['oracle'])}"
    for name, row in rows.items():
        if name not in ("learned", "hard", "oracle", "uniform", "off"):
            text += f" {name}: {row['exact_match']:.1%} right."
    return f"{text} Without any edit: {rows['off']['exact_match']:.1%}."


def _bottleneck(oracle: dict) -> str:
    scores = f"{oracle['loss']:.3f} nats, {oracle['exact_match']:.1%}"
    if oracle["gap_high"] < 0 and oracle["gap"] < -_LITTLE:
        return f"Oracle gates do better ({scores}): the router is the bottleneck."
    if oracle["gap_low"] > 0 and oracle["gap"] > _LITTLE:
        return f"Oracle gates do worse ({scores}): the subspaces do not stand for one skill each."
    return f"Oracle gates do no better ({scores}): the router is not the bottleneck."


def sentence_sweep(table: pd.DataFrame) -> str:
    """What cutting the gates costs, and how far the threshold matters, from `sweep_table`."""
    if table.empty:
        return "There are no scores to compare."
    own = table[table["source"] == table["source"].iloc[0]]
    hard = own[own["gates"] == HARD]
    middle = hard.loc[(hard["threshold"] - 0.5).abs().idxmin()]
    best = hard.loc[hard["loss"].idxmin()]
    near = hard[hard["loss"] <= best["loss"] + _LITTLE]["threshold"]
    return (
        f"At {middle['threshold']:.2f}, hard gates cost {middle['gap']:+.3f} nats against soft "
        f"ones (95 % {middle['gap_low']:+.3f} to {middle['gap_high']:+.3f}; "
        f"n = {int(middle['n'])}{over_words(own)}). "
        f"Within {_LITTLE} nats of the best hard loss ({best['loss']:.3f}): thresholds "
        f"{near.min():.2f} to {near.max():.2f}."
    )


def _estimate(row: dict) -> str:
    return f"{row['value']:.3f} (95 % {row['low']:.3f} to {row['high']:.3f})"


def _ends(row: dict) -> str:
    if "exact_match_low" not in row:
        return ""
    return f"[{row['exact_match_low']:.1%}, {row['exact_match_high']:.1%}] "


def _times(n: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(n, f"{n} times")


def _at_most(gate: float) -> str:
    return f"at most {gate:.3f}" if gate >= 0.001 else "below 0.001"


def _list(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
