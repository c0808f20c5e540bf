"""What a comparison of methods measures, and which way is better. No imports: figures read it."""

COSTS = {"train_s": "s", "peak_bytes": "bytes", "tokens_per_s": "tokens a second"}
"""Column of `cells` -> its unit."""
MEASURED = (
    "harm",
    "harm_exact",
    "joint_harm",
    "joint_harm_exact",
    "gain",
    "gain_exact",
    "forgetting",
    "forgetting_exact",
    "conflict",
    *COSTS,
)
"""Columns of `cells` whose means over the seeds are given."""

MORE_IS_BETTER = {
    "exact_match": True,
    "two_skills": True,
    "loss": False,
    "joint_harm_exact": False,
    "joint_harm": False,
    "harm_exact": False,
    "harm": False,
    "gain_exact": True,
    "gain": True,
    "interference_index": False,
    "forgetting_exact": False,
    "forgetting": False,
    "conflict": None,
    "train_s": False,
    "peak_bytes": False,
    "tokens_per_s": True,
}
"""Measure of `main_table` -> which end is the good one; None where neither is."""
