"""The skill set ``english``: natural English for a base that can read it."""
