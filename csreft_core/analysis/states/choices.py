"""What the States view can be asked for, as far as it needs no numbers."""

from csreft_core.reft.position_rules import EditedTokens

BASES = ("base", "joint", "differences")
"""What axes can be fitted on; `subspace:<name>` takes the axes of one subspace."""


def edited_token(positions: EditedTokens) -> str:
    """A token that the adapter edits: `last` prompt token, or `first` where only a prefix is."""
    return "last" if positions.everything or positions.suffix else "first"


def edits_token(positions: EditedTokens, position: str) -> bool:
    """Whether the adapter can edit this token, of a prompt that is long or short enough."""
    if position == "mean" or positions.everything:
        return position != "mean"
    if position == "first":
        return positions.prefix > 0
    return positions.suffix >= (1 if position == "last" else -int(position))
