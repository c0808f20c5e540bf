"""Run folders: one run, all runs, and the queue that trains them."""
