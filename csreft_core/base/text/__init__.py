"""Texts as a base's tokeniser and its chat template see them."""
