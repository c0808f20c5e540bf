"""The Skills page: the skill set of the next run."""
