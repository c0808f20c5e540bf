"""The papers' claims: what was measured, rules, verdicts."""
