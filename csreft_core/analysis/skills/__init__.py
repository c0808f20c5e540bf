"""Skill sets as tables."""
