"""What the measurements show of each condition, and the verdict on each claim of the papers.

A verdict is computed from a table of measurements alone: nothing is read or run here, see `claims`.
"""

from collections.abc import Iterable

import pandas as pd

from csreft_core.analysis.claims.conditions import CONDITIONS, Condition
from csreft_core.analysis.claims.papers import CLAIMS, Claim
from csreft_core.analysis.labels import NOT_SHOWN, OPPOSITE, SHOWN
from csreft_core.analysis.statistics.interval_words import ARITHMETIC

HOLDS = "holds here"
IDENTITY = "true by construction"
UNDECIDED = "not shown here"
FAILS = "does not hold here"
UNTESTABLE = "not testable here"
UNMEASURED = "not measured yet"
VERDICTS = (HOLDS, IDENTITY, UNDECIDED, FAILS, UNTESTABLE, UNMEASURED)

FEWEST_SEEDS = 3
"""What a training came to is judged from at least so many of them."""

MEASURE_COLUMNS = (
    "condition",
    "value",
    "low",
    "high",
    "control_value",
    "n",
    "seeds",
    "over",
    "source",
)
"""What a measurement is: see `judge_conditions`."""


def judge_conditions(measurements: pd.DataFrame) -> pd.DataFrame:
    """Every condition with what was measured and what that shows.

    Args:
        measurements: At most one row for each condition: condition (its name), value, low and high
            (95 % interval; equal for exact arithmetic, NaN where there is none), control_value (of
            the control itself; NaN where there is no such number), n (prompts in each cell; 0
            for arithmetic), seeds (how many), over (what the interval is over: `seeds`,
            `arithmetic`, or what `intervals.Units.over` says), source (where the numbers are from).

    Returns:
        Columns claim, condition, quantity, control, rule, must, bound, unit, those of the
        measurements, and finding, which is empty where nothing, or too little, was measured.
    """
    known = {row["condition"]: row for row in measurements.to_dict("records")}
    nan = float("nan")
    nothing = dict.fromkeys(("value", "low", "high", "control_value"), nan)
    nothing |= {"n": 0, "seeds": 0, "over": "", "source": ""}
    rows = []
    for condition in CONDITIONS:
        told = {
            "claim": condition.claim,
            "condition": condition.name,
            "quantity": condition.quantity,
            "control": condition.control,
            "rule": condition.rule,
            "must": condition.must,
            "bound": condition.bound,
            "unit": condition.unit,
        }
        values = known.get(condition.name, nothing)
        measured = {name: values[name] for name in MEASURE_COLUMNS if name != "condition"}
        rows.append(told | measured | {"finding": _finding(condition, values)})
    return pd.DataFrame(rows)


def _finding(condition: Condition, row: dict) -> str:
    exact = row["over"] == ARITHMETIC or _claim(condition.claim).identity
    if (row["seeds"] < FEWEST_SEEDS and not exact) or pd.isna(row["low"]) or pd.isna(row["high"]):
        return ""
    return condition.finding(row["low"], row["high"])


def _claim(name: str) -> Claim:
    return next(claim for claim in CLAIMS if claim.name == name)


def verdict(claim: Claim, findings: Iterable[str]) -> str:
    """The verdict on a claim from the findings of its conditions.

    One condition whose opposite is shown is enough for `does not hold here`, one that is measured
    and not met for `not shown here`; it holds only if all are met.

    Args:
        claim: Which one.
        findings: `shown`, `not shown`, `the opposite is shown`, or empty for not measured.
    """
    results = list(findings)
    if claim.why_not:
        return UNTESTABLE
    if OPPOSITE in results:
        return FAILS
    if NOT_SHOWN in results:
        return UNDECIDED
    if not results or any(finding != SHOWN for finding in results):
        return UNMEASURED
    return IDENTITY if claim.identity else HOLDS


def judge_claims(conditions: pd.DataFrame) -> pd.DataFrame:
    """The verdict on every claim.

    Args:
        conditions: `judge_conditions`.

    Returns:
        Columns claim, paper, places, text, verdict, met (conditions that are shown), conditions
        (how many there are), why_not (why it cannot be tested, or why being true is no evidence;
        else empty).
    """
    rows = []
    for claim in CLAIMS:
        findings = conditions.loc[conditions["claim"] == claim.name, "finding"].tolist()
        judgement = verdict(claim, findings)
        why = claim.why_not or claim.identity
        rows.append(
            (
                claim.name,
                claim.paper,
                claim.places,
                claim.text,
                judgement,
                findings.count(SHOWN),
                len(findings),
                why,
            )
        )
    columns = ["claim", "paper", "places", "text", "verdict", "met", "conditions", "why_not"]
    return pd.DataFrame(rows, columns=columns)
