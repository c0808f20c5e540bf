"""Statistics that several views share: intervals, separation, Shapley values."""
