"""The commands that care for an installation: `doctor`, and those that build what is shipped."""

import argparse
import json
import logging
import os
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from csreft_core.cli.app import check_streamlit
from csreft_core.cli.output import after_first, quiet_libraries, rows_text
from csreft_core.shipped.doctor import run_checks


def doctor_command(args: argparse.Namespace) -> int:
    """Print the checks; 1 if something has to be done."""
    quiet_libraries()
    checks = run_checks()
    well = all(check.ok for check in checks)
    if args.json:
        rows = [{**asdict(check), "ok": check.ok} for check in checks]
        print(json.dumps({"ok": well, "checks": rows}, ensure_ascii=False, indent=2))
        return 0 if well else 1
    for check in checks:
        print(f"{'ok ' if check.ok else 'BAD'}  {check.name:<13} {check.found}")
        if not check.ok:
            print(f"     {'':<13} -> {check.remedy}")
    print("All is well." if well else "Follow the arrows above, then run doctor again.")
    return 0 if well else 1


def build_pocket_command(args: argparse.Namespace) -> int:
    """Train the embedded base into a new folder; `--check` then asks it every skill."""
    from csreft_core.shipped.pocket.build import build
    from csreft_core.shipped.pocket.check import knowledge_table

    quiet_libraries()
    out = Path(args.out)
    records = after_first(build(out, steps=args.steps, seed=args.seed))
    record: dict[str, Any] = {}
    with tqdm(unit="step", file=sys.stderr, leave=False) as bar:
        for record in records:
            if record["event"] == "step":
                bar.total = record["steps"]
                bar.set_postfix(loss=f"{record['loss']:.3f}", refresh=False)
                bar.update()
    print(f"{out}: {record['n_parameters']:,} weights, sha256 {record['sha256']}")
    if args.check:
        print(rows_text([asdict(row) for row in knowledge_table(out)]))
    return 0


def check_english_command(args: argparse.Namespace) -> int:
    """Students' prompts answered by an English run, and the base after examples of each skill."""
    from csreft_core.analysis.subject import open_subject
    from csreft_core.shipped.english.check import few_shot_knowledge, student_answers

    quiet_libraries()
    subject = open_subject(args.run)
    students = [
        one._asdict() for one in student_answers(subject.engine, subject.adapter, subject.template)
    ]
    rows, examples = subject.split(args.split), subject.split("train")
    knowledge = [one._asdict() for one in few_shot_knowledge(subject.engine, rows, examples)]
    if args.json:
        print(json.dumps({"students": students, "three_shot": knowledge}, ensure_ascii=False))
        return 0
    print(rows_text(students))
    print(f"{sum(one['right'] for one in students)} of {len(students)} right\n")
    print(f"the base alone after three examples, split {args.split}")
    print(rows_text(knowledge))
    return 0


def build_examples_command(args: argparse.Namespace) -> int:
    """Train the shipped runs into a folder."""
    from csreft_core.shipped.examples import build_examples

    quiet_libraries()
    for run in build_examples(Path(args.out), args.names):
        size = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
        print(f"{run.path}: {size / 1000:.0f} kB", flush=True)
    return 0


def build_views_command(args: argparse.Namespace) -> int:
    """Keep beside the shipped runs what their pages show at first.

    Raises:
        ConfigError: Streamlit is not installed.
    """
    check_streamlit()
    quiet_libraries()
    logging.disable(logging.WARNING)  # Streamlit warns of every page without a server
    # By name: the command line and the pages know nothing of each other.
    first_views = import_module("csreft_core.app.first_views")
    with TemporaryDirectory() as no_runs:
        os.environ["CSREFT_RUNS"] = no_runs  # one's own runs are compared with nothing that is kept
        for line in first_views.keep_first_views(args.names):
            print(line, flush=True)
    return 0
