"""Answers and scores of a base with an adapter: the engine, scoring, sampling, lm_eval."""
