"""The data sets of the papers as skill sets: UltraFeedback, Alpaca, commonsense-170k, math-10k.

They are read with the `datasets` library, which is optional, from the network or from a local copy.
None of them is shipped. Where a published set names no skill, a rule below gives one, and its
`skill_rule` says how far that can be trusted. No code of a data repository is run.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from csreft_core.errors import SkillSetError, first_line
from csreft_core.skills.formats.column_mapping import ColumnMapping
from csreft_core.skills.formats.records import Record, name_list
from csreft_core.skills.formats.rows import ReadRow, ReadRows, as_rows
from csreft_core.skills.skill_set import SkillSet, checked_set

_LLM_ADAPTERS = "https://raw.githubusercontent.com/AGI-Edgerunners/LLM-Adapters/main"

Fields = dict[str, Any]


@dataclass(frozen=True)
class DataPreset:
    """A published data set and the way to skills.

    Attributes:
        about: One line.
        source: Hub id, or the address of a JSON file.
        split: Which of its splits is read.
        columns: What is needed of its rows.
        n_rows: Rows of the published set.
        licence: As its authors state it.
        skill_rule: How a row gets its skill.
        to_row: From a published row to skill, prompt and response; None leaves the row out.
    """

    about: str
    source: str
    split: str
    columns: tuple[str, ...]
    n_rows: int
    licence: str
    skill_rule: str
    to_row: Callable[[Fields], Fields | None]


def _alpaca(row: Fields) -> Fields:
    kind = "with_input" if (row.get("input") or "").strip() else "without_input"
    return {**{k: row[k] for k in ("instruction", "input", "output")}, "skill": kind}


_FLAN = re.compile(r"flan_v2_.*")


def _ultrafeedback(row: Fields) -> Fields | None:
    """The completion that was judged best; the first of equals."""
    answers = [c for c in row["completions"] or () if (c.get("response") or "").strip()]
    if not answers:
        return None
    best = max(answers, key=lambda c: _number(c.get("overall_score")))
    skill = _FLAN.sub("flan", row["source"])
    return {"skill": skill, "prompt": row["instruction"], "response": best["response"]}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("-inf")


_COMMONSENSE = {
    "true/false": "boolq",
    "solution1/solution2": "piqa",
    "ending1/ending2/ending3/ending4": "hellaswag",
    "option1/option2": "winogrande",
    "answer1/answer2/answer3": "social_iqa",
    "answer1/answer2/answer3/answer4": "arc_openbookqa",
    "answer1/answer2/answer3/answer4/answer5": "arc_openbookqa",
}
_ANSWER_FORMAT = re.compile(r"answer format:\s*(\S+)", re.IGNORECASE)


def _commonsense(row: Fields) -> Fields:
    formats = _ANSWER_FORMAT.findall(row["instruction"])
    skill = _COMMONSENSE.get(formats[-1].rstrip(".").lower()) if formats else None
    return {**{k: row[k] for k in ("instruction", "input", "output")}, "skill": skill or "other"}


_CHOICES = re.compile(r"answer choices:|options:", re.IGNORECASE)


def _math(row: Fields) -> Fields:
    skill = "multiple_choice" if _CHOICES.search(row["instruction"]) else "number"
    return {**{k: row[k] for k in ("instruction", "input", "output")}, "skill": skill}


_INSTRUCTIONS = ("instruction", "input", "output")
DATA_PRESETS = {
    "ultrafeedback": DataPreset(
        about="Prompts of six collections with four judged completions each; the data of the "
        "CS-ReFT release and of ReFT's instruction tuning.",
        source="openbmb/UltraFeedback",
        split="train",
        columns=("source", "instruction", "completions"),
        n_rows=63_967,
        licence="MIT",
        skill_rule="The published column 'source': sharegpt, ultrachat, evol_instruct, "
        "truthful_qa, false_qa, and flan for its four parts. A source is where a prompt comes "
        "from, not an ability. Response: the completion with the highest overall_score (the "
        "CS-ReFT release takes the first one, unscored).",
        to_row=_ultrafeedback,
    ),
    "alpaca": DataPreset(
        about="Instructions with answers of text-davinci-003; where ReFT chose its "
        "hyperparameters for instruction tuning.",
        source="tatsu-lab/alpaca",
        split="train",
        columns=_INSTRUCTIONS,
        n_rows=52_002,
        licence="CC BY-NC 4.0",
        skill_rule="Alpaca names no task. The only split that its columns give is whether a row "
        "has an input: with_input, without_input.",
        to_row=_alpaca,
    ),
    "commonsense-170k": DataPreset(
        about="The training questions of eight commonsense tasks in fixed wordings, from "
        "LLM-Adapters; ReFT's Table 1.",
        source=f"{_LLM_ADAPTERS}/ft-training_set/commonsense_170k.json",
        split="train",
        columns=_INSTRUCTIONS,
        n_rows=170_420,
        licence="not stated for the mixture; each task has its own",
        skill_rule="The set names no task. The line 'Answer format' at the end of each "
        "instruction tells boolq, piqa, hellaswag, winogrande and social_iqa (three answers) "
        "apart. ARC easy, ARC challenge and OpenBookQA share one wording, so they are one skill, "
        "arc_openbookqa; the few ARC questions with three answers fall to social_iqa. Six skills, "
        "where the paper reports eight tasks.",
        to_row=_commonsense,
    ),
    "math-10k": DataPreset(
        about="Word problems with worked answers from LLM-Adapters; ReFT's Table 2.",
        source=f"{_LLM_ADAPTERS}/ft-training_set/math_10k.json",
        split="train",
        columns=_INSTRUCTIONS,
        n_rows=9_919,
        licence="not stated for the mixture; each task has its own",
        skill_rule="The set names no task. Problems that list answer choices (AQuA) are "
        "multiple_choice, all others (GSM8K, MAWPS and their kind) are number; wording does not "
        "tell those apart. Two skills.",
        to_row=_math,
    ),
}


def skills_from_preset(
    name: str, *, folder: Path | None = None, limit: int | None = None, seed: int = 0
) -> SkillSet:
    """Read a published data set as a checked skill set, with a split for each row.

    Rows whose prompt or answer is empty are left out, and so are rows whose prompt another row
    asked before: a prompt with two answers teaches neither.

    Args:
        name: One of `DATA_PRESETS`.
        folder: A local copy, of JSON, JSONL, CSV or parquet files; None reads the network.
        limit: At most so many rows of each skill, the first ones; None takes all.
        seed: Of the shuffle that gives the splits.

    Raises:
        SkillSetError: an unknown name, no `datasets`, a source that cannot be read, or one without
            the columns that the preset needs.
    """
    if name not in DATA_PRESETS:
        raise SkillSetError(
            f"unknown data preset {name!r}; choose one of {name_list(DATA_PRESETS)}"
        )
    if limit is not None and limit < 1:
        raise SkillSetError(f"the limit is {limit}; give at least 1 row of each skill, or no limit")
    preset = DATA_PRESETS[name]
    rows = list(_limit_rows(_rows(preset, _load_published(name, preset, folder)), limit))
    if not rows:
        raise SkillSetError(f"{name}: no row has a prompt and an answer; check the local copy")
    return checked_set(ReadRows(rows), name, seed)


def _load_published(name: str, preset: DataPreset, folder: Path | None) -> Iterable[Fields]:
    if find_spec("datasets") is None:
        raise SkillSetError(
            f"the data preset {name!r} needs the library datasets; install it with: "
            "pip install 'datasets>=5,<6'"
        )
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        rows = _from_network(datasets, preset) if folder is None else _from_folder(datasets, folder)
    except (OSError, ValueError, DatasetsError) as error:
        where = preset.source if folder is None else str(folder)
        raise SkillSetError(
            f"{name}: {where} cannot be read ({first_line(error, 200)}); check the network, "
            "or download the files and give their folder with --from"
        ) from None
    missing = [column for column in preset.columns if column not in rows.column_names]
    if missing:
        raise SkillSetError(
            f"{name}: the rows have no {name_list(missing)}; found {name_list(rows.column_names)}; "
            f"is it a copy of {preset.source}?"
        )
    return rows


def _from_network(datasets: Any, preset: DataPreset) -> Any:
    if preset.source.startswith("https://"):
        if os.environ.get("HF_DATASETS_OFFLINE") == "1":
            raise OSError("HF_DATASETS_OFFLINE is set")
        return datasets.load_dataset("json", data_files=preset.source, split=preset.split)
    return datasets.load_dataset(preset.source, split=preset.split)


def _from_folder(datasets: Any, folder: Path) -> Any:
    """All files of the first kind that the folder has, as one table."""
    for kind, pattern in (
        ("parquet", "*.parquet"),
        ("json", "*.jsonl"),
        ("json", "*.json"),
        ("csv", "*.csv"),
    ):
        files = sorted(str(path) for path in folder.rglob(pattern))
        if files:
            return datasets.load_dataset(kind, data_files=files, split="train")
    raise OSError("no .parquet, .jsonl, .json or .csv file in that folder")


def _rows(preset: DataPreset, source: Iterable[Fields]) -> Iterator[ReadRow]:
    prompts: set[str] = set()
    for i, fields in enumerate(source, start=1):
        row = preset.to_row(dict(fields))
        if row is None or not all(
            isinstance(row.get(key, "-"), str) and row.get(key, "-").strip()
            for key in ("instruction", "output", "prompt", "response")
        ):
            continue
        record = Record(f"{preset.source}: row {i}", row)
        (item,) = as_rows([record], preset.source, ColumnMapping(skill="skill")).rows
        if item.row.prompt not in prompts:
            prompts.add(item.row.prompt)
            yield item


def _limit_rows(rows: Iterable[ReadRow], limit: int | None) -> Iterator[ReadRow]:
    if limit is None:
        yield from rows
        return
    counts: Counter[tuple[str, ...]] = Counter()
    for item in rows:
        if counts[item.row.skills] < limit:
            counts[item.row.skills] += 1
            yield item
