"""Which tokens are edited, as a rule that is read from a text; `positions` applies it."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class EditedTokens:
    """Edited tokens of a prompt of n real tokens.

    `prefix` p and `suffix` s give the first p and last s prompt tokens. A short prompt edits what
    it has: p is capped at floor(n/2) and s at ceil(n/2) when both are asked for (ReFT,
    section 4.1), so that no token is edited twice and none of the answer is edited.
    """

    everything: bool = False
    generated: bool = False
    prefix: int = 0
    suffix: int = 0
    n_groups: int = 1


def edited_tokens(rule: str, *, tied: bool = True) -> EditedTokens:
    """Read `all`, `all_prompt`, `fP`, `lS` or `fP+lS` (the config has checked the grammar)."""
    if rule in ("all", "all_prompt"):
        return EditedTokens(everything=True, generated=rule == "all")
    counts = {kind: int(count) for kind, count in re.findall(r"([fl])(\d+)", rule)}
    return EditedTokens(
        prefix=counts.get("f", 0), suffix=counts.get("l", 0), n_groups=1 if tied else 2
    )
