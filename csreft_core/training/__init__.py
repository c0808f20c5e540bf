"""One training: its loop, its step, its loss, and what it keeps on disk."""
