"""The method in numbers: subspaces, router, positions, gates, and the adapter of them."""
