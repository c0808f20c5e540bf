"""Positions: which tokens are edited, as a rule on absolute token indices.

A rule is resolved from the real tokens of each row, so padding on either side and a key-value
cache change nothing. No I/O, no randomness.
"""

import re
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class PositionRule:
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

    def groups(
        self, index: Int[Tensor, "batch seq"], prompt_length: Int[Tensor, " batch"]
    ) -> Int[Tensor, "batch seq"]:
        """The edit group of each token: -1 is not edited, 1 the last tokens of an untied edit.

        Args:
            index: Place of each token among the real tokens of its row, from 0; -1 for padding.
            prompt_length: n, real tokens in the prompt.
        """
        n = prompt_length.unsqueeze(1)
        real = index >= 0
        if self.everything:
            return torch.where(real if self.generated else real & (index < n), 0, -1)
        both = self.prefix > 0 and self.suffix > 0
        p = (n // 2).clamp(max=self.prefix) if both else n.clamp(max=self.prefix)
        s = ((n + 1) // 2).clamp(max=self.suffix) if both else n.clamp(max=self.suffix)
        first = real & (index < p)
        last = real & (index >= n - s) & (index < n)
        group = torch.where(last, self.n_groups - 1, -1)
        return torch.where(first, 0, group)

    def n_before(self, prompt_length: int) -> int:
        """Tokens before the first edited one, in a prompt of this length."""
        if self.everything or self.prefix:
            return 0
        return max(0, prompt_length - self.suffix)


def parse_positions(rule: str, *, tied: bool = True) -> PositionRule:
    """Read `all`, `all_prompt`, `fP`, `lS` or `fP+lS` (the config has checked the grammar)."""
    if rule in ("all", "all_prompt"):
        return PositionRule(everything=True, generated=rule == "all")
    counts = {kind: int(count) for kind, count in re.findall(r"([fl])(\d+)", rule)}
    return PositionRule(
        prefix=counts.get("f", 0), suffix=counts.get("l", 0), n_groups=1 if tied else 2
    )


def token_index(mask: Bool[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
    """Place of each token among the real tokens of its row, from 0; -1 for padding."""
    return torch.where(mask, mask.to(torch.int64).cumsum(1) - 1, -1)
