"""A figure on a page: its table from the cache, its picture, its sentence, its code."""
