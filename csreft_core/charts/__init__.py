"""Figures: tidy tables in, plotly figures out. No tensors, no page, no files."""
