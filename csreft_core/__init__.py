"""CS-ReFT: train, route and inspect gated low-rank edits of a frozen language model."""
