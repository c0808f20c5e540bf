"""The Router page: gates of a prompt and of held-out rows."""
