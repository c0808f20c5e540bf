"""The Compare page: answers side by side."""
