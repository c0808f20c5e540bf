"""How far the settings of a draw may go."""

MOST_TEMPERATURE = 5.0
MOST_SEED = 2**32 - 1
