"""The embedded tiny base model ``pocket``: its words, its texts, its training, its check."""
