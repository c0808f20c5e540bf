"""What must be measured for each claim of the papers to hold here, with its control and bound.

docs/claims.md states the rules in words, and which of them were changed after results had been
seen, and why.
"""

from dataclasses import dataclass
from typing import Literal

from csreft_core.analysis.labels import NOT_SHOWN, OPPOSITE, SHOWN

LITTLE = 0.05
"""Nats per answer token: a change below it is no change."""
LITTLE_EXACT = 0.005
"""Exact match, 0 to 1: one answer in 200. Those that err least here err in 2 to 9 of 1,000, so a
wider bound would call twice as many errors no change."""
TELLS = 0.5
"""Normalised mutual information, no unit: gates above it tell the skill more than they do not."""
INSIDE = 0.9999
"""Share of an edit's squared length in its subspace, no unit; the rest is rounding in float32."""


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
