"""Positions: which tokens are edited, as a rule on absolute token indices.

A rule is resolved from the real tokens of each row, so padding on either side and a key-value
cache change nothing. No I/O, no randomness.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from csreft_core.reft.position_rules import EditedTokens, edited_tokens


class PositionRule(EditedTokens):
    """Edited tokens, found in a batch."""

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
    """The rule of a text; see `position_rules.edited_tokens`."""
    return PositionRule(**vars(edited_tokens(rule, tied=tied)))


def token_index(mask: Bool[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
    """Place of each token among the real tokens of its row, from 0; -1 for padding."""
    return torch.where(mask, mask.to(torch.int64).cumsum(1) - 1, -1)
