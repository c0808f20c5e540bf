"""How an adapter gets into a base: wrapped blocks, and which tokens a forward edits."""
