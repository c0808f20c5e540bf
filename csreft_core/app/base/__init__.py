"""The Model page: which base, whether it fits, and its load."""
