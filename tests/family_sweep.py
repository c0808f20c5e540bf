"""A sweep over every causal model class of transformers: each is right, or refused in words.

    python -m tests.family_sweep

builds each class tiny, tries it and writes `docs/families.md`. Each class runs in a process that
may hang or die. With names of model types as arguments it prints their outcomes and writes nothing.
"""

import multiprocessing
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue

import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from csreft_core.base.files import read_description
from csreft_core.config import BaseConfig
from csreft_core.errors import UnsupportedModelError, first_line
from tests import family_checks
from tests.causal_classes import model_types, tiny_config, tiny_model
from tests.repository import ROOT
from tests.tiny import tiny_base

TABLE = ROOT / "docs" / "families.md"
RIGHT, REFUSED, NOT_BUILT, WRONG = "right", "refused", "not built", "wrong"
_N_WORKERS = 2
_PATIENCE_S = 1800


@dataclass(frozen=True)
class Outcome:
    """What became of a class, and why."""

    kind: str
    why: str = ""


def outcome(model_type: str) -> Outcome:
    """Build a class tiny, load it, and check it against plain forwards."""
    try:
        config = tiny_config(model_type)
        model = tiny_model(config)
    except Exception as error:  # noqa: BLE001 - each class fails in its own way
        return Outcome(NOT_BUILT, f"{type(error).__name__}: {first_line(error)}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            config.save_pretrained(folder)
            read_description(BaseConfig(path=folder), Path(folder))
        base = tiny_base(model)
    except UnsupportedModelError as error:
        return Outcome(REFUSED, _without_name(str(error)))
    checks = (
        family_checks.check_forward,
        family_checks.check_states,
        family_checks.check_generation,
        family_checks.check_training,
        lambda base: family_checks.check_memory(base, config),
    )
    try:
        for check in checks:
            check(base)
    except Exception as error:  # noqa: BLE001 - whatever it is, it stands in the table
        return Outcome(WRONG, f"{type(error).__name__}: {first_line(error)}")
    return Outcome(RIGHT)


def _without_name(message: str) -> str:
    """The message without the base's name."""
    if not message.startswith("base.path "):
        return message
    return message.split("' ", 1)[-1].removeprefix("is ").strip()


def _work(pipe: Connection) -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    with suppress(EOFError):  # when the other end is closed
        while True:
            pipe.send(outcome(pipe.recv()))


class _Worker:
    """A process that tries classes one after another, and is replaced when it hangs or dies."""

    def __init__(self) -> None:
        self._process = None

    def outcome(self, model_type: str) -> Outcome:
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_work, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
        try:
            self._pipe.send(model_type)
            if self._pipe.poll(_PATIENCE_S):
                return self._pipe.recv()
            why = f"took more than {_PATIENCE_S} s"
        except (EOFError, OSError):
            why = "the process died"
        self._process.kill()
        self._process = None
        return Outcome(WRONG, why)


def swept(types: Sequence[str]) -> Iterator[tuple[str, Outcome]]:
    """The outcomes of all classes, in their order."""
    workers: SimpleQueue[_Worker] = SimpleQueue()
    for _ in range(_N_WORKERS):
        workers.put(_Worker())

    def one(model_type: str) -> Outcome:
        worker = workers.get()
        found = worker.outcome(model_type)
        workers.put(worker)
        return found

    with ThreadPoolExecutor(_N_WORKERS) as pool:
        yield from zip(types, pool.map(one, types), strict=True)


def read_table() -> tuple[str, dict[str, Outcome]]:
    """The version of transformers and the outcomes that the document holds."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    version = next(line.split("`")[1] for line in lines if line.startswith("Made with"))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "`" in line[:4]]
    return version, {row[0].strip("`"): Outcome(row[2], row[3]) for row in rows}


def as_document(found: dict[str, Outcome]) -> str:
    """The table, with the number of each outcome."""
    counts = Counter(one.kind for one in found.values())
    rows = [
        f"| `{name}` | {MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name]} | {one.kind} | {_cell(one.why)} |"
        for name, one in found.items()
    ]
    return "\n".join([*_HEAD, _made(counts, len(found)), "", *_COLUMNS, *rows, ""])


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("`", "'").strip()


def _made(counts: Counter[str], n: int) -> str:
    numbers = ", ".join(f"{counts[kind]} {kind}" for kind in (RIGHT, REFUSED, NOT_BUILT, WRONG))
    return f"Made with transformers `{transformers.__version__}`: {n} model types, {numbers}."


_HEAD = (
    "# Which model families work",
    "",
    "Every model type that transformers loads as a causal language model, built tiny with random",
    "weights and tried by `python -m tests.family_sweep`, which writes this table.",
    "",
    "- **right**: closed gates change no bit; edits at `f1`, `f2+l2`, `l1`, `all` are those of a",
    "  plain forward hook on unpadded rows without cache, also with left padding and in `generate`",
    "  with its cache; an edit changes the states of its layer and later ones only; four training",
    "  steps are finite and touch the adapter alone, with kept states and checkpointing the",
    "  gradients are the same; the weights are counted exactly from the config. Within 1e-4 of the",
    "  largest value, in 32 bits.",
    "- **refused**: by this message, when the base is loaded, before anything runs.",
    "- **not built**: transformers cannot build it from its config class with small numbers here.",
    "- **wrong**: anything else. There should be none.",
    "",
    "Nothing is known in advance of any family: `csreft_core/base/checks.py` tries each base when",
    "it is loaded. Decoders that are encoders by default are built with `is_decoder`.",
    "",
)
_COLUMNS = ("| Model type | Class | Outcome | Why |", "|---|---|---|---|")


def main(types: Sequence[str]) -> None:
    """Print outcomes; without names, of all classes, and write the table."""
    found = {}
    for name, one in swept(types or model_types()):
        found[name] = one
        sys.stdout.write(f"{one.kind:10} {name} {one.why}\n")
        sys.stdout.flush()
    if not types:
        TABLE.write_text(as_document(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
