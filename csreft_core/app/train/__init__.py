"""The Train page: a new run, and one that trains."""
