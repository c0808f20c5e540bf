"""Skill sets: rows from anybody's file, their splits, and the tokens and batches made of them."""
