"""A disk that refuses: full, read-only, or closed to this program."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def refusing(number: int = errno.ENOSPC) -> Iterator[None]:
    """Inside this block nothing can be written; what is there can be read and locked.

    Args:
        number: What the system says, such as `errno.EROFS`.
    """

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    opened = Path.open

    def open_to_read(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        return refuse() if set(mode) & set("wax+") else opened(path, mode, *args, **options)

    def make_folder(path: Path, *_: Any, exist_ok: bool = False, **__: Any) -> None:
        if not (exist_ok and path.is_dir()):
            refuse()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "mkdir", make_folder)
        patch.setattr(os, "fsync", refuse)
        patch.setattr(tempfile, "mkdtemp", refuse)
        for name in ("touch", "replace", "rename", "write_bytes", "write_text"):
            patch.setattr(Path, name, refuse)
        patch.setattr(Path, "open", open_to_read)
        yield
