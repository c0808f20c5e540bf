"""Where files lie: the shipped ones in the checkout or inside the installed package; the cache."""

import os
from pathlib import Path

from platformdirs import user_cache_path

_PACKAGE = Path(__file__).resolve().parents[1]
_PACKED = _PACKAGE / "site"

INSTALLED = _PACKED.is_dir()
"""Whether this package came from a wheel, which carries the shipped files inside."""

PROJECT = _PACKED if INSTALLED else _PACKAGE.parent
"""The folder that holds `app.py`, `pages/` and `assets/`."""

ASSETS = PROJECT / "assets"
"""The shipped base, runs, comparisons, skill sets and texts. Nothing is written into it."""


def cache_folder() -> Path:
    """Where fetched bases are kept: $CSREFT_CACHE, or else the user's cache folder."""
    asked = os.environ.get("CSREFT_CACHE")
    if asked:
        return Path(asked).expanduser().absolute()
    return user_cache_path("csreft", appauthor=False)
