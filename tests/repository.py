"""What belongs to the repository, for the tests that read it as text."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_NOT_OURS = {".git", ".venv", "runs", "build", "__pycache__", ".pytest_cache", ".ruff_cache"}


def repository_files() -> list[Path]:
    """Paths below the root, sorted: those git knows, else (no git, an unpacked zip) all."""
    git = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if git.returncode == 0 and git.stdout:
        paths = [Path(name) for name in git.stdout.split("\0") if name]
    else:
        paths = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
    kept = (path for path in paths if not _NOT_OURS & set(path.parts))
    return sorted(path for path in kept if (ROOT / path).is_file())
