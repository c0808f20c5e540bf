"""The papers' claims, what must be measured for each to hold here, and the verdict.

docs/claims.md states the rules in words, and which of them were changed after results had been
seen, and why. A verdict is computed from a table of measurements alone: nothing is read or run
here, see `claims`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from csreft_core.analysis.labels import NOT_SHOWN, OPPOSITE, SHOWN
from csreft_core.analysis.statistics.intervals import ARITHMETIC

HOLDS = "holds here"
IDENTITY = "true by construction"
UNDECIDED = "not shown here"
FAILS = "does not hold here"
UNTESTABLE = "not testable here"
UNMEASURED = "not measured yet"
VERDICTS = (HOLDS, IDENTITY, UNDECIDED, FAILS, UNTESTABLE, UNMEASURED)

LITTLE = 0.05
"""Nats per answer token: a change below it is no change."""
LITTLE_EXACT = 0.005
"""Exact match, 0 to 1: one answer in 200. Those that err least here err in 2 to 9 of 1,000, so a
wider bound would call twice as many errors no change."""
TELLS = 0.5
"""Normalised mutual information, no unit: gates above it tell the skill more than they do not."""
INSIDE = 0.9999
"""Share of an edit's squared length in its subspace, no unit; the rest is rounding in float32."""
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


@dataclass(frozen=True)
class Condition:
    """One thing that must be measured for a claim to hold.

    It is met if the whole 95 % interval lies beyond the bound, and the opposite is shown if it lies
    wholly on the other side; an interval that touches the bound shows nothing.

    Attributes:
        name: Its id, the claim's before the point.
        quantity: What is measured.
        control: What it is held against.
        must: On which side of the bound the interval has to lie.
        bound: In `unit`.
        unit: Of the value.
    """

    name: str
    quantity: str
    control: str
    must: Literal["below", "above"]
    bound: float
    unit: str

    @property
    def claim(self) -> str:
        """The claim's id."""
        return self.name.partition(".")[0]

    @property
    def rule(self) -> str:
        """The rule in words, as docs/claims.md has it."""
        end = "upper" if self.must == "below" else "lower"
        return f"{end} end {self.must} {self.bound:g} {self.unit}".rstrip()

    def finding(self, low: float, high: float) -> str:
        """`shown`, `not shown` or `the opposite is shown`, from the ends of the interval."""
        beyond, against = (high < self.bound, low > self.bound)
        if self.must == "above":
            beyond, against = (low > self.bound, high < self.bound)
        return SHOWN if beyond else OPPOSITE if against else NOT_SHOWN


@dataclass(frozen=True)
class Claim:
    """What a paper says, in our words.

    Attributes:
        name: Its id.
        paper: Which one.
        places: Sections and tables.
        text: The claim.
        why_not: Why it cannot be tested here; empty where it can.
        identity: Why the measurement checks the code and is no evidence; empty where it is.
    """

    name: str
    paper: str
    places: str
    text: str
    why_not: str = ""
    identity: str = ""


CLAIMS = (
    Claim(
        "C1",
        "CS-ReFT",
        "abstract, sections 1 and 3.3",
        "Subspaces of their own keep skills apart: training one does not harm the others.",
    ),
    Claim(
        "C2",
        "CS-ReFT",
        "section 1",
        "Orthonormal subspaces of hidden states separate skills better than orthogonal LoRA, "
        "which acts on weights.",
    ),
    Claim(
        "C3",
        "CS-ReFT",
        "sections 3.2 and 3.3",
        "The router composes subspaces where a prompt needs several skills.",
    ),
    Claim(
        "C4",
        "CS-ReFT",
        "section 3.2",
        "The router finds which prompt needs which subspace, without labels.",
    ),
    Claim(
        "C5",
        "CS-ReFT",
        "table 1, sections 1, 3.2 and 3.3",
        "It trains 0.0098 % of Llama-2-7B, 12.7 times less than LoRA, and the router adds little.",
    ),
    Claim(
        "C6",
        "CS-ReFT",
        "abstract, table 1",
        "With it Llama-2-7B reaches 93.94 % on AlpacaEval, more than GPT-3.5 Turbo.",
        why_not="Rank, layers, positions, data, seeds, decoding and judge are not published, "
        "the released code trains no subspace, and the judge is a paid service. `generate "
        "--format alpaca_eval` writes the file for whoever has a base and the judge.",
    ),
    Claim(
        "C7",
        "CS-ReFT",
        "section 3.3",
        "Changes to one subspace do not overwrite another: skills learned one after the other "
        "are kept.",
    ),
    Claim(
        "R1",
        "ReFT",
        "section 3.2, equation 2",
        "The edit moves a hidden state inside its subspace alone, to the learned target.",
        identity="The code computes the edit by that equation, so the measurement checks the "
        "code and says nothing about models.",
    ),
    Claim(
        "R2",
        "ReFT",
        "section 4.1, appendix D.2",
        "Editing a few prompt tokens is enough; more do not help.",
    ),
    Claim(
        "R3",
        "ReFT",
        "appendix F.1",
        "One learned vector, rank 1 at one layer and one token, can hold a long text.",
    ),
    Claim(
        "R4",
        "ReFT",
        "appendix G.1 and pyreft's notebooks",
        "The edit can be scaled after training: 0 is the base, and a negative factor works "
        "against the skill.",
    ),
)
"""C1 to C7 are those of CS-ReFT, R1 to R4 those of ReFT that this project can look at."""

_SHARED, _LORA = "LoReFT (shared), same total rank", "LoRA"
_ELSEWHERE = "O-LoRA, which edits every token, on one block"
_OLORA = "O-LoRA; CS-ReFT on all prompt tokens"
_HARM = {
    "": "harm to the other skills by training on one alone, untrained start",
    "_joint": "harm to the other skills by training on one alone, joint start",
    "_exact": "exact match that the others lose by training on one alone, joint start",
}


def _harms(name: str, control: str, nats: float = 0.0, exact: float = 0.0) -> list[Condition]:
    """Harm in nats from both starts, and in exact match from the joint one.

    From the untrained start nothing works yet, so there are no answers to lose.
    """
    end = "" if control.startswith("none") else ", minus that of the control, by seed"
    return [
        Condition(
            f"{name}{part}",
            f"{quantity}{end}",
            control,
            "below",
            exact if part == "_exact" else nats,
            "" if part == "_exact" else "nats a token",
        )
        for part, quantity in _HARM.items()
    ]


CONDITIONS = (
    *_harms("C1.harm", "none: 0 is no harm", LITTLE, LITTLE_EXACT),
    *_harms("C1.loreft", _SHARED),
    *_harms("C1.lora", _LORA),
    *_harms("C2.olora", _ELSEWHERE),
    *_harms("C2.positions", _OLORA),
    *_harms("C2.none", "CS-ReFT without constraint"),
    Condition(
        "C3.gain",
        "gain of both right gates over the better one alone, two-skill prompts",
        "each of the two gates alone",
        "above",
        0.0,
        "nats a token",
    ),
    Condition(
        "C3.loreft",
        "exact match on two-skill prompts minus that of the control, by seed",
        _SHARED,
        "above",
        0.0,
        "",
    ),
    Condition(
        "C4.nmi",
        "NMI of open gates and skill, router trained without labels",
        "first-token router, whose gates are constant (NMI 0); oracle gates (NMI 1)",
        "above",
        TELLS,
        "",
    ),
    Condition(
        "C5.share",
        "subspaces and router of section 4, fewest that k = 4 allows",
        "0.0098 %, as printed",
        "below",
        0.00985,
        "% of Llama-2-7B",
    ),
    Condition(
        "C5.lora", "LoRA's parameters divided by those", "LoRA of table 1", "above", 12.65, "times"
    ),
    Condition("C5.router", "the router's part of them", "the subspaces", "below", 0.5, ""),
    Condition(
        "C7.kept",
        "forgetting of CS-ReFT, skills one after the other",
        "none: 0 is no loss",
        "below",
        LITTLE,
        "nats a token",
    ),
    Condition(
        "C7.kept_exact",
        "exact match that CS-ReFT forgets, skills one after the other",
        "none: 0 is no loss",
        "below",
        LITTLE_EXACT,
        "",
    ),
    Condition(
        "C7.loreft",
        "forgetting of CS-ReFT minus that of the control, by seed",
        _SHARED,
        "below",
        0.0,
        "nats a token",
    ),
    Condition(
        "C7.loreft_exact",
        "exact match that CS-ReFT forgets minus that of the control, by seed",
        _SHARED,
        "below",
        0.0,
        "",
    ),
    Condition(
        "R1.inside",
        "share of the edit's squared length inside the span of R",
        "a random subspace of the same size",
        "above",
        INSIDE,
        "",
    ),
    Condition(
        "R1.target",
        "distance of R h' from W h + b, relative to the way moved",
        "R h, the start (1)",
        "below",
        1 - INSIDE,
        "",
    ),
    Condition(
        "R2.all",
        "loss with the last prompt token edited minus all prompt tokens, by seed",
        "CS-ReFT on all prompt tokens",
        "below",
        LITTLE,
        "nats a token",
    ),
    Condition(
        "R2.all_exact",
        "exact match with the last prompt token edited minus all prompt tokens, by seed",
        "CS-ReFT on all prompt tokens",
        "above",
        -LITTLE_EXACT,
        "",
    ),
    Condition(
        "R3.text",
        "share of a text's beginning that rank 1 gives back",
        "the same words in random order",
        "above",
        0.5,
        "",
    ),
    Condition(
        "R3.scrambled",
        "that share minus that of the scrambled text",
        "the same words in random order",
        "above",
        0.0,
        "",
    ),
    Condition(
        "R4.with",
        "log-probability of right answers, factor 1 minus factor 0",
        "factor 0",
        "above",
        0.0,
        "nats a token",
    ),
    Condition(
        "R4.against",
        "log-probability of right answers, factor −1 minus factor 0",
        "factor 0",
        "below",
        0.0,
        "nats a token",
    ),
)
"""What must be met; a claim holds if all its conditions are."""


def conditions_of(claim: str) -> tuple[Condition, ...]:
    """The conditions of a claim."""
    return tuple(condition for condition in CONDITIONS if condition.claim == claim)


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
    found = {row["condition"]: row for row in measurements.to_dict("records")}
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
        values = found.get(condition.name, nothing)
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
    found = list(findings)
    if claim.why_not:
        return UNTESTABLE
    if OPPOSITE in found:
        return FAILS
    if NOT_SHOWN in found:
        return UNDECIDED
    if not found or any(finding != SHOWN for finding in found):
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
        found = verdict(claim, findings)
        why = claim.why_not or claim.identity
        rows.append(
            (
                claim.name,
                claim.paper,
                claim.places,
                claim.text,
                found,
                findings.count(SHOWN),
                len(findings),
                why,
            )
        )
    columns = ["claim", "paper", "places", "text", "verdict", "met", "conditions", "why_not"]
    return pd.DataFrame(rows, columns=columns)
