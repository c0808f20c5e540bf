"""Losses of every skill under every gate setting, and gate patterns on one prompt."""
