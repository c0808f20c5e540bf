"""How a figure shows each measure of a comparison of methods."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A column of `main_table` as a figure shows it.

    Attributes:
        question: That its figure answers.
        title: Of the axis, with the unit.
        form: Number format.
        factor: Multiplies the value, for another unit.
    """

    question: str
    title: str
    form: str
    factor: float = 1.0


MEASURES = {
    "exact_match": Measure(
        "Which method answers right most often?",
        "exact match on held-out prompts",
        ".1%",
    ),
    "two_skills": Measure(
        "Which method does two skills in one prompt, never trained?",
        "exact match on two-skill prompts",
        ".1%",
    ),
    "loss": Measure(
        "Which method has the lowest loss?",
        "loss (nats per answer token)",
        ".3f",
    ),
    "joint_harm_exact": Measure(
        "How many answers to the others does training one skill cost, from the joint start?",
        "exact match lost, joint start",
        ".1%",
    ),
    "joint_harm": Measure(
        "How much does training one skill harm the others, from the joint start?",
        "harm (nats per answer token), joint start",
        ".3f",
    ),
    "harm_exact": Measure(
        "How many answers to the others does training one skill cost, from the untrained start?",
        "exact match lost, untrained start",
        ".1%",
    ),
    "harm": Measure(
        "How much does training one skill harm the others, from the untrained start?",
        "harm (nats per answer token), untrained start",
        ".3f",
    ),
    "gain_exact": Measure(
        "How many answers to the trained skill does the same training bring?",
        "exact match gained, untrained start",
        ".1%",
    ),
    "gain": Measure(
        "How much does the same training improve the trained skill itself?",
        "gain (nats per answer token), untrained start",
        ".3f",
    ),
    "interference_index": Measure(
        "How much harm is there for each nat of gain?",
        "harm over gain (no unit), untrained start",
        ".3f",
    ),
    "forgetting_exact": Measure(
        "Of how many answers is a skill robbed by those that follow it?",
        "exact match forgotten",
        ".1%",
    ),
    "forgetting": Measure(
        "Which method forgets least when skills come one after another?",
        "forgetting (nats per answer token)",
        ".3f",
    ),
    "conflict": Measure(
        "Do the skills' gradients pull the same way?",
        "mean cosine of two skills' gradients (no unit)",
        ".3f",
    ),
    "train_s": Measure("Which method trains fastest?", "training time (s)", ".1f"),
    "peak_bytes": Measure("Which method needs least memory?", "peak memory (MB)", ".1f", 1e-6),
    "tokens_per_s": Measure("Which method answers fastest?", "tokens a second", ".0f"),
}
"""Column of `main_table` -> how it is shown."""
