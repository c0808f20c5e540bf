"""Figures about a skill set."""
