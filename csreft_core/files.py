"""Writing files so that a reader, or a kill at any moment, never finds half of one.

What a disk refuses (full, read-only, not allowed) is the user's to mend, so it is a `StorageError`.
Knows nothing about what is written.
"""

import errno
import math
import os
import re
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from csreft_core.errors import CsreftError, StorageError

T = TypeVar("T")

_TRIES = 50
_PAUSE_S = 0.02
_LEFT_OVER_S = 3600.0
_REASONS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "your share of the disk is used up; free some space",
    errno.EROFS: "the disk is read-only; choose a place that can be written to",
    errno.EACCES: "this program may not write there; change the permissions, or choose another "
    "place",
    errno.EPERM: "this program may not write there; change the permissions, or choose another "
    "place",
    errno.EEXIST: "a file stands where a folder is needed; choose another place",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another place",
}
# Libraries that write by themselves hide the disk's error in one of their own.
_NUMBERED = re.compile(r"\(os error (\d+)\)")
_TORCH_WRITER = "PytorchStreamWriter"


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """What the disk refuses inside this block is an error that says why and what to do.

    Args:
        path: What is written, for the message.

    Raises:
        StorageError: instead of an `OSError`, or of a library's error about one.
    """
    try:
        yield
    except TimeoutError:  # a lock that another process holds
        raise
    except OSError as error:
        raise StorageError(f"{path}: cannot be written, {_reason(error)}") from error
    except Exception as error:
        match = _NUMBERED.search(str(error))
        if match is None and _TORCH_WRITER not in str(error):
            raise
        number = errno.ENOSPC if match is None else int(match[1])
        hidden = OSError(number, os.strerror(number))
        raise StorageError(f"{path}: cannot be written, {_reason(hidden)}") from error


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0) or f"{error.strerror or error}; see what is wrong there"


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace the content of a file, or make it; text is written as UTF-8 with `\\n` line ends.

    The folder must exist.

    Raises:
        StorageError: the disk refuses; the old content stays.
    """
    content = data.encode("utf-8") if isinstance(data, str) else data
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def finite(value: Any) -> Any:
    """A value for a JSON file: numbers that are not finite, which JSON has not, become None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives the name of a new file to write, which then takes the place of `path` in one step.

    What was written reaches the disk before that: after a power cut one of the two is there, whole.

    Raises:
        StorageError: the disk refuses; what was there stays.
    """
    me = f"{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f".{path.name}.{me}.tmp")
    with storage_errors(path):
        try:
            yield temporary
            with temporary.open("rb+") as file:  # Windows flushes only what may be written
                os.fsync(file.fileno())
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


def clear_left_over(
    folder: Path, pattern: str = ".*.tmp", older_than_s: float = _LEFT_OVER_S
) -> None:
    """Remove the temporary files of processes that were killed while they wrote.

    Args:
        folder: Where to look; it may be missing.
        pattern: Names of such files.
        older_than_s: Younger ones stay: somebody may be writing them. 0 where nobody else writes.
    """
    with storage_errors(folder):
        for path in folder.glob(pattern):
            if time.time() - path.lstat().st_mtime >= older_than_s:
                path.unlink(missing_ok=True)


def check_plain(path: Path, most: int | None = None) -> None:
    """See that a file can be read: one that blocks, or has no end, is never opened.

    Args:
        path: Links are followed.
        most: Bytes that it may have.

    Raises:
        OSError: missing, out of reach, no plain file, or larger.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.EINVAL, "is no plain file")
    if most is not None and facts.st_size > most:
        raise OSError(errno.EFBIG, f"has {facts.st_size:,} bytes, more than {most:,}")


class ReadCache(Generic[T]):
    """What files hold, read again only when they have changed; errors of the user are kept too.

    Args:
        read: Reads a file.
        most: Files that are remembered; the one not asked for longest goes first.
    """

    def __init__(self, read: Callable[[Path], T], most: int) -> None:
        self._read, self._most = read, most
        self._entries: OrderedDict[Path, tuple[tuple[int, ...], T | CsreftError]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, path: Path) -> T:
        """What the file holds; raises what reading it raises."""
        stamp = _stamp(path)
        with self._lock:
            entry = self._entries.get(path)
            if entry is not None and entry[0] == stamp:
                self._entries.move_to_end(path)
                return _value_or_error(entry[1])
        try:
            value: T | CsreftError = self._read(path)
        except CsreftError as error:
            value = error
        with self._lock:
            self._entries[path] = stamp, value
            self._entries.move_to_end(path)
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)
        return _value_or_error(value)


def _stamp(path: Path) -> tuple[int, ...]:
    """Changes with the file; a missing one has none."""
    try:
        facts = path.stat()
    except OSError as error:
        return (error.errno or 0,)
    return facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size


def _value_or_error(value: T | CsreftError) -> T:
    if isinstance(value, CsreftError):
        raise type(value)(*value.args)
    return value
