"""Figures of interference."""
