"""The frozen model: found, checked, loaded; its blocks, its memory, its number formats."""
