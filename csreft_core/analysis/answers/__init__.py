"""Answers and next tokens under gate settings."""
