"""Tidy tables of what a run did and does, and the sentences that sum them up."""
