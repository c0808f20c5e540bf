"""How subspaces lie to each other."""
