"""The memory of a base: what it needs, what it uses, and what to do when it is exhausted."""
