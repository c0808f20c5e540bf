"""Figures of gates."""
