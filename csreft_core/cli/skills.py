"""`check-skills` and `skills-from-preset`: the tables of the Skills page; published data sets."""

import argparse
import json
from collections import Counter
from pathlib import Path

import pandas as pd

from csreft_core.analysis.skills import sentences as say
from csreft_core.analysis.skills.batch import batch_table
from csreft_core.analysis.skills.pairs import leaks_table, similarity_table, twins_table
from csreft_core.analysis.skills.subject import SkillSubject, open_skills
from csreft_core.analysis.skills.tables import (
    counts_table,
    lengths_table,
    skills_table,
    special_table,
    unknown_table,
    unwritable_table,
)
from csreft_core.cli.output import print_table, quiet_libraries, say_notes
from csreft_core.errors import ConfigError, SkillSetError
from csreft_core.skills.published import DATA_PRESETS, skills_from_preset
from csreft_core.skills.skill_set import skill_name, write_skills

TABLES = {
    "skills": skills_table,
    "counts": counts_table,
    "lengths": lengths_table,
    "unknown": unknown_table,
    "unwritable": unwritable_table,
    "special": special_table,
    "batch": batch_table,
    "leaks": leaks_table,
    "twins": twins_table,
    "similarity": similarity_table,
}
_SENTENCES = {
    "counts": say.sentence_counts,
    "lengths": say.sentence_lengths,
    "unknown": say.sentence_unknown,
    "unwritable": say.sentence_unwritable,
    "special": say.sentence_special,
    "batch": say.sentence_batch,
    "leaks": say.sentence_leaks,
    "similarity": say.sentence_similarity,
}


def check_skills_command(args: argparse.Namespace) -> int:
    """Print one table, or what all of them say."""
    quiet_libraries()
    if args.table is not None and args.table not in TABLES:
        raise ConfigError(f"there is no table {args.table!r}; choose one of {', '.join(TABLES)}")
    if args.csv and args.table is None:
        raise ConfigError(f"--csv prints one table; give --table {'|'.join(TABLES)}")
    subject = open_skills(args.skills, args.set)
    say_notes(subject.skill_set)
    if args.table is not None:
        _print(_table(args.table, subject, args.step), args)
    elif args.json:
        print(json.dumps({name: _records(_table(name, subject, args.step)) for name in TABLES}))
    else:
        for name, sentence in _SENTENCES.items():
            print(f"{name:<11} {sentence(_table(name, subject, args.step))}")
    return 0


def _table(name: str, subject: SkillSubject, step: int) -> pd.DataFrame:
    if name == "batch":
        if step < 0:
            raise ConfigError(f"--step is {step}; steps count from 0")
        return batch_table(subject, step=step)
    return TABLES[name](subject)


def _records(table: pd.DataFrame) -> list[dict]:
    return json.loads(table.to_json(orient="records", double_precision=15))


def _print(table: pd.DataFrame, args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps(_records(table), ensure_ascii=False))
    else:
        print_table(table, csv=args.csv, json=False)


def skills_from_preset_command(args: argparse.Namespace) -> int:
    """Write a published data set as a skill set, and say how its rows got their skills."""
    quiet_libraries()
    out = Path(args.out)
    if out.suffix != ".jsonl":
        raise SkillSetError(f"--out {out}: the skill set is JSONL; give a name that ends in .jsonl")
    if out.exists():
        raise SkillSetError(f"--out {out}: is there already; choose another name")
    if not out.parent.is_dir():
        raise SkillSetError(f"--out {out}: there is no folder {out.parent}; make it")
    folder = Path(args.folder) if args.folder else None
    skill_set = skills_from_preset(args.name, folder=folder, limit=args.limit, seed=args.seed)
    write_skills(skill_set, out)
    preset, counts = DATA_PRESETS[args.name], Counter(map(skill_name, skill_set.rows))
    if args.json:
        about = {"out": str(out), "rows": len(skill_set.rows), "skills": counts}
        print(json.dumps({**about, "source": preset.source, "licence": preset.licence}))
        return 0
    skill_counts = ", ".join(f"{name} {n:,}" for name, n in counts.items())
    print(f"{out}: {len(skill_set.rows):,} rows ({skill_counts})")
    print(f"source: {preset.source}; licence: {preset.licence}")
    print(f"skills: {preset.skill_rule}")
    return 0
