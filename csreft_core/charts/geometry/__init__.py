"""Figures of subspaces."""
