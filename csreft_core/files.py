"""Writing files so that a reader, or a kill at any moment, never finds half of one.

Knows nothing about what is written.
"""

import os
import tempfile
import time
from pathlib import Path

_TRIES = 50
_PAUSE_S = 0.02


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace the content of a file, or make it; text is written as UTF-8 with `\\n` line ends.

    The data reach the disk under another name in the same folder, which must exist, and then take
    the place of the old file in one step.
    """
    content = data.encode("utf-8") if isinstance(data, str) else data
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if os.name == "posix":
            temporary.chmod(0o666 & ~_umask())
        replace_file(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(source: Path, target: Path) -> None:
    """Move a file over another one. Windows refuses while a reader has the target open: try again.

    Raises:
        PermissionError: still refused after a second.
    """
    for attempt in range(_TRIES):
        try:
            source.replace(target)
            return
        except PermissionError:
            if os.name == "posix" or attempt == _TRIES - 1:
                raise
            time.sleep(_PAUSE_S)


def _umask() -> int:
    """The permission bits that new files of this process do not get."""
    return _UMASK


def _read_umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


# Read once, while modules are imported: reading it means setting it, which threads would notice.
_UMASK = _read_umask()
