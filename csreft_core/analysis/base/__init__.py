"""A base: its needs and its layers."""
