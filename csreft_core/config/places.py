"""Where the shipped files lie: in the checkout, or inside the installed package."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_PACKED = _PACKAGE / "site"

INSTALLED = _PACKED.is_dir()
"""Whether this package came from a wheel, which carries the shipped files inside."""

PROJECT = _PACKED if INSTALLED else _PACKAGE.parent
"""The folder that holds `app.py`, `pages/` and `assets/`."""

ASSETS = PROJECT / "assets"
"""The shipped base, runs, comparisons, skill sets and texts. Nothing is written into it."""
