"""What is shipped and how it was made: the pocket base, the example runs, the doctor."""
