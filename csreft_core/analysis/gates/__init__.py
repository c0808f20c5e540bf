"""Gates as tables: of prompts, of held-out rows, of words."""
