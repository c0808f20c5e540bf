"""Values of the tables' columns that say what a row is, as tables write and figures read them.

Strings alone, no imports: a figure knows them without torch.
"""

RUN, CONTROL = "run", "control"
"""`kind`: of the run itself, or of what it is held against."""
OTHER_RUN = "run:"
"""In front of a run's name, where another run stands in for a gate setting."""

READS = {
    "first_token": "first token",
    "last_prompt_token": "last prompt token",
    "mean_prompt": "mean of the prompt",
}
"""What a router reads, by `router.input`."""

# Gates: `gates` of a threshold's sweep, and `method` and `quantity` of the words.
SOFT, HARD = "soft", "hard"
OCCLUSION, GRADIENTS = "occlusion", "integrated gradients"
GATE, LOGIT = "gate", "logit"

# Geometry: `kind` of random subspaces and of other runs, `measure` of a drift and of a leak.
RANDOM = "random"
RANDOM_LOW, RANDOM_MEDIAN, RANDOM_HIGH = "random 2.5 %", "random median", "random 97.5 %"
SAME_SKILL, DIFFERENT_SKILLS = "same skill", "different skills"
ALL_SKILLS = "all skills together"
FROM_START, BETWEEN_SKILLS = "from the start", "between skills"
WRITE_LEAK, READ_LEAK = "write leak", "read leak"
DATA_OVERLAP = "data-weighted overlap"

# States: `kind` of a state, a coordinate, a component, an energy and labels; `measure` of labels.
BASE, EDITED = "base", "edited"
BEFORE, AFTER, TARGET = "before", "after", "target"
BASE_STATES, EDIT = "base states", "edit"
EDIT_ON_BASE_AXES = "edit on the axes of the base states"
GATED, ALL_OPEN = "gated", "all gates 1"
SILHOUETTE, PROBE = "silhouette", "probe accuracy"
TRUE_LABELS, SHUFFLED_LABELS, MAJORITY = "true labels", "shuffled labels", "majority class"

# One prompt: `kind` of a gate pattern; closed gates are the base.
PATTERN, IN_USE = "pattern", "in use"

# Answers: `column` of the next token, `mark` of a dose.
THIS_RUN, MANUAL = "this run", "manual gates"
ROUTER, NOW = "router", "now"

# Claims: `finding` of a condition, and `kind` of a text that is learned by heart.
SHOWN, NOT_SHOWN, OPPOSITE = "shown", "not shown", "the opposite is shown"
TEXT, SCRAMBLED = "text", "scrambled"
