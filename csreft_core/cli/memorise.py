"""`memorise`: how long a text one vector holds; trainings in one folder, and a table of them."""

import argparse
import json
import shlex
import time
from pathlib import Path

import torch
from tqdm import tqdm

from csreft_core.analysis.claims.memorisation import shares_table
from csreft_core.base.devices import machine
from csreft_core.base.load import load_base
from csreft_core.cli.output import print_table, quiet_libraries
from csreft_core.cli.settings import numbers
from csreft_core.comparison.memorising import KINDS, Trial, default_source, memorise
from csreft_core.config import BaseConfig
from csreft_core.errors import ConfigError, RunError
from csreft_core.files import write_atomic


def memorise_command(args: argparse.Namespace) -> int:
    """Train what is not trained yet, write `memorisation.json`, and print the shares."""
    quiet_libraries()
    lengths, seeds = numbers(args.lengths, "--lengths", 1), numbers(args.seeds, "--seeds", 0)
    layers = numbers(args.layers, "--layers", 0)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    source = _source(args.file)
    base = load_base(BaseConfig(path=args.base))
    if max(layers) >= base.n_layers:
        raise ConfigError(
            f"--layers has {max(layers)}, but the base has layers 0 to {base.n_layers - 1}"
        )
    folder = Path(args.out)
    trials = [
        Trial(kind, layer, tokens, seed)
        for seed in seeds
        for layer in layers
        for tokens in lengths
        for kind in KINDS
    ]
    try:
        progress = tqdm(memorise(folder, trials, base, source), total=len(trials), unit="text")
        rows = list(progress)
    except KeyboardInterrupt:
        raise RunError("interrupted; the same command goes on") from None
    document = {
        "command": shlex.join(["python", "-m", "csreft_core", *args.given]),
        "machine": machine(base.device),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "base_fingerprint": base.fingerprint,
        "rows": rows,
    }
    write_atomic(folder / "memorisation.json", json.dumps(document, indent=1) + "\n")
    print_table(
        shares_table(memorised=str(folder / "memorisation.json")), csv=args.csv, json=args.json
    )
    return 0


def _source(file: str | None) -> str:
    if file is None:
        return default_source()
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as text ({error}); give a UTF-8 file") from None
