"""Where a fetched base lies, and whether it is there whole. `base.fetch` brings it."""

from pathlib import Path

from csreft_core.config import KnownBase, cache_folder

COMMAND = "python -m csreft_core fetch-base"


def fetched_folder(known: KnownBase) -> Path:
    """The folder of a fetched base in the cache, whether it is there or not."""
    return cache_folder() / "bases" / known.path


def what_is_wrong(known: KnownBase) -> str:
    """Why a fetched base cannot be loaded; empty where its files are there, whole by their sizes.

    What it costs is a look at a few files: their content is compared when they are loaded, by the
    base's record.

    Args:
        known: One with a wheel.
    """
    assert known.wheel is not None, known.path
    folder = fetched_folder(known)
    if not folder.is_dir():
        return f"base.path {known.path!r} is not fetched yet; run: {COMMAND} {known.path}"
    whole = all(_has_size(folder / name, facts.size) for name, facts in known.wheel.made.items())
    if whole and all(_is_copy(path, folder / path.name) for path in described(known)):
        return ""
    return f"base.path {known.path!r} is damaged in {folder}; run: {COMMAND} {known.path}"


def described(known: KnownBase) -> list[Path]:
    """The shipped files that describe a fetched base: its settings and its card."""
    assert known.shipped_folder is not None, known.path
    return sorted(known.shipped_folder.iterdir())


def is_fetched(known: KnownBase) -> bool:
    """Whether nothing is wrong with a fetched base."""
    return not what_is_wrong(known)


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _is_copy(path: Path, copy: Path) -> bool:
    return copy.is_file() and copy.read_bytes() == path.read_bytes()
