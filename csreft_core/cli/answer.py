"""`evaluate` and `generate`: the commands that use a finished run."""

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

from csreft_core.analysis.gates.tables import gate_skill_nmi, gates_table
from csreft_core.analysis.interference.composition import (
    best_patterns,
    pattern_scores,
    pattern_table,
)
from csreft_core.analysis.subject import Subject
from csreft_core.attachment.attach import attach
from csreft_core.base.decoding import BASE_OWN, OURS, check_decoding, in_words, settings_that_differ
from csreft_core.base.load import Base, load_base
from csreft_core.cli.model_outputs import REFT_LONGEST, read_instructions, write_outputs
from csreft_core.cli.output import quiet_libraries, rows_text, say_notes
from csreft_core.config import PLAIN_TEMPLATE, Config
from csreft_core.config.templates import is_chat
from csreft_core.errors import ConfigError
from csreft_core.inference.engine import Engine
from csreft_core.inference.sampling import check_sampling
from csreft_core.inference.scoring import encode_rows, evaluate
from csreft_core.reft.adapter import CSReFT, load_adapter
from csreft_core.reft.base_record import check_base, old_record
from csreft_core.reft.gate_settings import parse_gate_setting
from csreft_core.runs.all_runs import Run, open_run
from csreft_core.skills.skill_set import Row, SkillSet, read_skills

BEST = "best"
_PROMPT_TOKENS = 32


@dataclass(frozen=True)
class _TrainedRun:
    """A run that can be used, without its base."""

    run: Run
    config: Config
    adapter: CSReFT

    @property
    def template(self) -> str:
        """The resolved template of its prompts."""
        provenance = self.config.provenance
        return PLAIN_TEMPLATE if provenance is None else provenance.template

    def base(self) -> Base:
        """Load its base and see that it is the right one."""
        base = load_base(self.config.base)
        chat = is_chat(self.template)
        recorded = self.adapter.spec.base_fingerprint
        check_base(recorded, base.fingerprint, base.id, chat=chat)
        if note := old_record(recorded, base.id):
            print(f"note: {note}", file=sys.stderr)
        return base

    def rows(self, skills: str | None, split: str) -> tuple[Row, ...]:
        """Rows of a skill set, by default of the one it was trained on."""
        if skills is None:
            return self.run.skill_set().split(split)
        skill_set = read_skills(skills, self.config.data.skill_column, to_train=False)
        say_notes(skill_set)
        return skill_set.split(split)


def _open(path: str) -> _TrainedRun:
    run = open_run(Path(path))
    return _TrainedRun(run, run.config(), load_adapter(run.adapter_path))


def evaluate_command(args: argparse.Namespace) -> int:
    """Loss, exact match and contained answers of each skill; with a router's gates, their NMI."""
    quiet_libraries()
    trained = _open(args.run)
    adapter, config = trained.adapter, trained.config
    if args.gates != BEST:
        parse_gate_setting(args.gates, adapter.names)
    rows = trained.rows(args.skills, args.split)
    base = trained.base()
    encoded = encode_rows(rows, base, trained.template, config.train.max_length)
    with attach(base) as attachment:
        if args.gates == BEST:
            scores = pattern_scores(best_patterns(pattern_table(attachment, adapter, encoded)))
        else:
            scores = evaluate(attachment, adapter, encoded, gates=args.gates, contains=True)
    result = {"run": str(trained.run.path), "gates": args.gates, "split": args.split, **scores}
    if args.gates in ("learned", "hard") and adapter.router is not None:
        skill_set = SkillSet(rows, adapter.spec.skills)
        subject = Subject(Engine(base), adapter, config, skill_set)
        nmi = gate_skill_nmi(gates_table(subject, split="all", gates=args.gates))
        result["nmi"] = None if math.isnan(nmi) else nmi
    print(json.dumps(result, ensure_ascii=False) if args.json else _scores_text(result))
    return 0


def _scores_text(result: dict) -> str:
    rows = [{"skill": name, **scores} for name, scores in result["skills"].items()]
    rows.append({"skill": "mean", **result["mean"], "n": sum(row["n"] for row in rows)})
    table = rows_text([_columns(row) for row in rows])
    end = f"\nnmi of gates and skill: {_nmi_text(result['nmi'])}" if "nmi" in result else ""
    return f"gates {result['gates']}, split {result['split']}\n{table}{end}"


def _nmi_text(nmi: float | None) -> str:
    return "undefined, the prompts have fewer than two skills" if nmi is None else f"{nmi:.3f}"


def _columns(row: dict) -> dict:
    return {
        "skill": row["skill"],
        "loss (nats)": row["loss"],
        "exact match": row["exact_match"],
        **({"contains": row["contains"]} if "contains" in row else {}),
        "n": row["n"],
    }


def generate_command(args: argparse.Namespace) -> int:
    """Answer one prompt, or a file of instructions, under a gate setting."""
    quiet_libraries()
    if args.file is not None:
        return _generate_file(args)
    names = ("temperature", "top_p", "seed")
    sampling = {name: getattr(args, name) for name in names}
    sampling["max_new_tokens"] = (
        _PROMPT_TOKENS if args.max_new_tokens is None else (args.max_new_tokens)
    )
    if args.format or args.out or args.generator:
        raise ConfigError("--format, --out and --generator belong to --file, not to --prompt")
    check_sampling(**sampling)
    check_decoding(args.decoding, args.temperature, args.top_p)
    trained = _open(args.run)
    parse_gate_setting(args.gates, trained.adapter.names)
    engine = Engine(trained.base())
    answer = engine.generate(
        trained.adapter,
        args.prompt,
        args.gates,
        template=trained.template,
        decoding=args.decoding,
        **sampling,
    )
    own = settings_that_differ(engine.base.own_decoding) if args.decoding == BASE_OWN else {}
    if args.json:
        record = {
            "prompt": answer.prompt,
            "text": answer.text,
            "gates": answer.gates,
            "decoding": args.decoding,
            "base_settings": own,
        }
        print(json.dumps(record, ensure_ascii=False))
        return 0
    print(answer.text)
    gates = (f"{name} {gate:.3f}" for name, gate in (answer.gates or {}).items())
    print("gates: " + "  ".join(gates))
    if args.decoding == BASE_OWN:
        print(f"decoded by the base's own settings: {in_words(own)}")
    return 0


def _generate_file(args: argparse.Namespace) -> int:
    """Answer a file of instructions with ReFT's decoding, in alpaca_eval's form."""
    if args.format is None or args.out is None:
        raise ConfigError("--file needs --format alpaca_eval and --out FILE.json")
    if (args.temperature, args.top_p, args.seed, args.decoding) != (0.0, 1.0, 0, OURS):
        raise ConfigError(
            "--file decodes greedily; leave --temperature, --top-p, --seed and --decoding out"
        )
    longest = REFT_LONGEST if args.max_new_tokens is None else args.max_new_tokens
    check_sampling(max_new_tokens=longest)
    instructions, trained = read_instructions(Path(args.file)), _open(args.run)
    parse_gate_setting(args.gates, trained.adapter.names)
    if args.gates == "oracle":
        raise ConfigError("gate setting 'oracle' needs skill labels, which --file has not")
    out, n = Path(args.out), 0
    if not out.parent.is_dir():
        raise ConfigError(f"{out}: there is no folder {out.parent}; make it first")
    for n in write_outputs(
        Engine(trained.base()),
        trained.adapter,
        instructions,
        out,
        gates=args.gates,
        template=trained.template,
        generator=args.generator or trained.run.name,
        max_new_tokens=longest,
    ):
        print(f"{n} of {len(instructions)} answered", file=sys.stderr, flush=True)
    record = {"file": str(out), "answers": n}
    print(json.dumps(record) if args.json else f"{out}: {n} answers")
    return 0
