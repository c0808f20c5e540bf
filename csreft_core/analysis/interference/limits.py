"""How much the Interference view tries."""

MAX_SUBSPACES = 8
"""Up to so many, all patterns of gates are tried."""
