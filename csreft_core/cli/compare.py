"""`compare`: methods x seeds in one folder, and its tables."""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from csreft_core.analysis.methods import comparison as tables
from csreft_core.base.devices import machine
from csreft_core.base.load import Base, load_base
from csreft_core.cli.output import print_table, quiet_libraries, rows_text, say_notes
from csreft_core.cli.settings import numbers
from csreft_core.comparison.folder import Comparison, Plan, Variant, begin
from csreft_core.comparison.presets import chosen_variants, settings_of
from csreft_core.comparison.work import chosen_skills, work
from csreft_core.errors import ConfigError, RunError
from csreft_core.methods.budget import match_budget
from csreft_core.methods.build import build_method
from csreft_core.training.loop import check_answers

_LIBRARIES = ("torch", "transformers", "peft")


def compare_command(args: argparse.Namespace) -> int:
    """Train and measure what is not done yet, then print a table."""
    quiet_libraries()
    variants = chosen_variants(args.preset, _parts(args.methods), args.set)
    first = settings_of(variants)
    if not _is_helper():
        say_notes(chosen_skills(next(iter(variants.values()))))
    torch.set_num_threads(first.train.threads or torch.get_num_threads())
    base = load_base(first.base)
    if args.budget is not None:
        variants = _within(variants, base, args.budget, show=not _is_helper())
    if not args.unwritable_answers and not (Path(args.out) / "comparison.json").exists():
        for variant in {v.config.data: v for v in variants.values()}.values():
            check_answers(variant.config, base, chosen_skills(variant))
    comparison = begin(Path(args.out), _plan(args, variants, base))
    helpers = [] if _is_helper() else _helpers(args)
    try:
        _work(comparison, base, helpers)
    except KeyboardInterrupt:
        raise RunError("interrupted; the same command goes on") from None
    if not _is_helper():
        print_table(_table(comparison, args.table), csv=args.csv, json=args.json)
    return 0


def _work(comparison: Comparison, base: Base, helpers: list[subprocess.Popen[bytes]]) -> None:
    began = time.monotonic()

    def tell(method: str, seed: int, state: str) -> None:
        minutes = (time.monotonic() - began) / 60
        print(f"{minutes:6.1f} min  {method} seed {seed}: {state}", file=sys.stderr, flush=True)

    work(comparison, base, tell)
    for helper in helpers:
        helper.wait()
    if any(helper.returncode for helper in helpers):
        work(comparison, base, tell)  # what a helper has left


def _parts(text: str | None) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()] if text else []


def _plan(args: argparse.Namespace, variants: dict[str, Variant], base: Base) -> Plan:
    for option in ("single_steps", "sequential_steps", "jobs"):
        if getattr(args, option) < 1:
            raise ConfigError(f"--{option.replace('_', '-')} must be at least 1")
    return Plan(
        name=args.preset,
        variants=variants,
        seeds=numbers(args.seeds, "--seeds", 0),
        single_steps=args.single_steps,
        sequential_steps=args.sequential_steps,
        per_skill=args.per_skill,
        budget=args.budget,
        base_fingerprint=base.fingerprint,
        command=shlex.join(["python", "-m", "csreft_core", *args.given]),
        machine=machine(base.device),
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        versions={name: version(name) for name in _LIBRARIES},
    )


def _within(
    variants: Mapping[str, Variant], base: Base, budget: int, *, show: bool
) -> dict[str, Variant]:
    """The variants with sizes for a number of trained parameters; prints how well they match."""
    if budget < 1:
        raise ConfigError(f"--budget must be at least 1, got {budget}")
    sized_variants, rows = {}, []
    for label, variant in variants.items():
        skills = chosen_skills(variant).names
        try:
            config = match_budget(variant.config, base, skills, budget)
            total = build_method(config, base, skills).counts()["total"]
        except ConfigError as error:  # it will fail as a cell, with this message
            sized_variants[label] = variant
            rows.append({"method": label, "parameters": "-", "of budget": "-", "size": str(error)})
            continue
        sized_variants[label] = replace(variant, config=config)
        rows.append(
            {
                "method": label,
                "parameters": f"{total:,}",
                "of budget": f"{total / budget:.0%}",
                "size": _size(config),
            }
        )
    if show:
        print(f"budget: {budget:,} trained parameters", rows_text(rows), sep="\n", file=sys.stderr)
    return sized_variants


def _size(config: object) -> str:
    from csreft_core.config import Config

    assert isinstance(config, Config)
    if config.method.name == "csreft":
        return f"adapter.rank={config.adapter.rank}"
    layers = "" if config.method.layers is None else f" method.layers={list(config.method.layers)}"
    return f"method.size={config.method.size}{layers}"


_HELPER = "CSREFT_COMPARE_HELPER"


def _is_helper() -> bool:
    return os.environ.get(_HELPER) == "1"


def _helpers(args: argparse.Namespace) -> list[subprocess.Popen[bytes]]:
    """More processes on the same folder, by the same command; each takes cells that are free."""
    command = [sys.executable, "-m", "csreft_core", *args.given]
    return [
        subprocess.Popen(command, env={**os.environ, _HELPER: "1"}, stdout=subprocess.DEVNULL)
        for _ in range(args.jobs - 1)
    ]


def _table(comparison: Comparison, name: str) -> pd.DataFrame:
    return getattr(tables, name)(comparison)
