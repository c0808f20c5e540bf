"""Which bases a visitor may ask for. `CSREFT_BASES` limits them on a machine that others use.

Without it every folder and every Hub id can be given, as on the command line: the app has no login
and is meant for one's own machine. With it, a visitor can neither find out which folders exist nor
make the server download.
"""

import os
from pathlib import Path

from csreft_core.config import known_bases
from csreft_core.errors import ConfigError

VARIABLE = "CSREFT_BASES"


def limiting_folder() -> Path | None:
    """The folder whose bases may be loaded; None allows everything."""
    text = os.environ.get(VARIABLE, "").strip()
    return Path(text).expanduser().absolute() if text else None


def offered_folders() -> list[str]:
    """Paths of the bases in that folder, by name."""
    root = limiting_folder()
    if root is None or not root.is_dir():
        return []
    return sorted(str(path) for path in root.iterdir() if (path / "config.json").is_file())


def named_bases() -> list[str]:
    """The known bases that need no Hub: shipped, or fetched into the cache by the owner."""
    return [path for path, known in known_bases().items() if not known.config]


def may_fetch() -> bool:
    """Whether a visitor may make this machine fetch a base."""
    return limiting_folder() is None


def check_allowed(path: str) -> None:
    """Check that a visitor may load this base.

    Raises:
        ConfigError: this server offers other ones.
    """
    if limiting_folder() is None or path in named_bases() or path in offered_folders():
        return
    names = ", ".join([*named_bases(), *(Path(folder).name for folder in offered_folders())])
    raise ConfigError(
        f"base.path {path!r} cannot be chosen in the browser: this server offers {names}; its "
        f"owner sets them with {VARIABLE}"
    )
