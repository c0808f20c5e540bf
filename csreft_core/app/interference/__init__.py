"""The Interference page: who helps or hurts whom."""
