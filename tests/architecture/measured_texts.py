"""The texts that state results, from templates and the shipped files.

`results.md` gives `docs/results.md`, `findings.md` the section "Findings" of the README.
`{expression:format}` stands for a number; the names of expressions are the functions and
comparisons of `facts`. A line `<!-- holds: expression -->` says what the block below it claims, and
a test sees that it is so; a block that claims nothing measured says
`<!-- nothing measured: reason -->`. `python -m tests.architecture.measured_texts` writes both.
"""

import json
import math
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from benchmarks import generation, workload
from benchmarks.training_step import limits_of
from benchmarks.workload import ratio
from csreft_core.analysis.claims import rules as claim_rules
from csreft_core.analysis.claims.memorisation import shares_table
from csreft_core.analysis.claims.tables import conditions_table
from csreft_core.analysis.methods.tables import main_table
from csreft_core.analysis.results import MEAN, SEEDS, WORST
from csreft_core.comparison.folder import open_comparison, shipped_comparisons
from csreft_core.runs.run import Run
from tests.repository import ROOT

RESULTS = ROOT / "assets/results.json"
_FOLDER = Path(__file__).parent
COMMENT = re.compile(r"<!-- (holds|nothing measured): (.+?) -->\n", re.DOTALL)
PLACE = re.compile(r"\{(.+?)(?::([^{}:]*))?\}", re.DOTALL)


class Measured(float):
    """A number with its interval; the format `.2f~` prints both.

    One seed has no interval, and what was not measured no number; both are said.
    """

    low: float
    high: float
    n: int
    over: str

    def __new__(cls, value: float, low: float, high: float, n: int = 0, over: str = ""):
        """Of one value with its ends, prompts and unit."""
        self = super().__new__(cls, value)
        self.low, self.high, self.n, self.over = low, high, n, over
        return self

    def __format__(self, form: str) -> str:
        if not form.endswith("~"):
            return super().__format__(form)
        one = form[:-1]
        if math.isnan(self):
            return "not measured"
        if math.isnan(self.low):
            return f"{format(float(self), one)} (one seed)"
        value, low, high = (format(float(x), one) for x in (self, self.low, self.high))
        return f"{value} [{low}, {high}]"


class Comparison:
    """The methods of a shipped comparison, each with the columns of `main_table`."""

    def __init__(self, path: Path):
        self._rows = main_table(str(path)).set_index("method")
        self._asked = open_comparison(path).plan()

    def __getattr__(self, method: str) -> SimpleNamespace:
        row: Any = self._rows.loc[method].to_dict()
        return SimpleNamespace(
            **{
                name: Measured(
                    value, row[f"{name}_low"], row[f"{name}_high"], row[f"{name}_seeds"], "seeds"
                )
                if f"{name}_low" in row
                else value
                for name, value in row.items()
            }
        )

    @property
    def steps(self) -> int:
        """Of the training of each method, the same for all."""
        (found,) = {variant.config.train.steps for variant in self._asked.variants.values()}
        return found

    @property
    def single_steps(self) -> int:
        """Of the training on one skill alone."""
        return self._asked.single_steps

    @property
    def methods(self) -> list[SimpleNamespace]:
        """All that are finished on some seed."""
        return [getattr(self, name) for name in self._rows.index[self._rows["seeds"] > 0]]


@cache
def conditions() -> pd.DataFrame:
    """What is measured for every claim, from everything that is shipped."""
    return conditions_table()


def run(name: str, measure: str, gates: str, *, split: str = "test", part: str = MEAN) -> Measured:
    """A row of assets/results.json."""
    keys = {"run": name, "measure": measure, "gates": gates, "split": split, "part": part}
    found = [row for row in _results() if all(row[k] == v for k, v in keys.items())]
    assert len(found) == 1, (keys, len(found))
    (row,) = found
    low, high = (float("nan") if row[e] is None else row[e] for e in ("low", "high"))
    return Measured(row["value"], low, high, row["n"], row["over"])


@cache
def _results() -> list[dict[str, Any]]:
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def over(names: Iterable[str], measure: str, gates: str, **where: str) -> list[Measured]:
    """The same measure of several runs."""
    return [run(name, measure, gates, **where) for name in names]


def numbers(values: Iterable[float], form: str) -> str:
    """`0.10, 0.20 and 0.30`."""
    return listed(format(value, form) for value in values)


def seconds(name: str) -> float:
    """How long a shipped run trained, without start and import."""
    status = Run(ROOT / "assets/examples" / name).status()
    assert status.ended is not None
    assert status.started is not None
    return status.ended - status.started


def threshold(name: str) -> float:
    """Above which a gate of a shipped run is open."""
    return Run(ROOT / "assets/examples" / name).config().router.threshold


def picture(part: str) -> Measured:
    """What two axes show."""
    return run("recommended-0", "two axes", "learned", part=part)


def subspaces(part: str) -> Measured:
    """How much of a skill's subspace other runs find."""
    return run("recommended-0", "overlap", "", split="", part=part)


def text(kind: str, tokens: int) -> Measured:
    """The share of a text that one vector gives back, over seeds."""
    table = shares_table().set_index(["kind", "tokens"])
    row: Any = table.loc[(kind, tokens)]
    return Measured(row["share"], row["low"], row["high"], int(row["seeds"]), "seeds")


@cache
def _timings(name: str) -> dict[str, Any]:
    (file,) = (ROOT / "benchmarks/results").glob(f"*-{name}.json")
    return json.loads(file.read_text(encoding="utf-8"))


def step(vocabulary: int, library: str, method: str) -> float:
    """A training step's time over that of the frozen limit, in the last epoch."""
    found = _timings("training-step")[f"vocabulary {vocabulary}"][library]
    return ratio(found[method][-1], limits_of(found, -1))


def more_subspaces(k: int) -> float:
    """A training step's time with k subspaces over that with one."""
    found = _timings("training-step")["skills"]
    return ratio(found[f"k = {k}"][-1], [found["k = 1"][-1]])


def speed(rows: int, method: str) -> float:
    """Generated tokens a second over the base's, for so many prompts at once."""
    found = _timings("generation")[f"batch {rows}"]["csreft"]
    return 1 / ratio(found[method][-1], limits_of(found, -1))


def claims(verdict: str, paper: str) -> list[str]:
    """The claims of a paper with this verdict."""
    table = claim_rules.judge_claims(conditions())
    return table.loc[(table["verdict"] == verdict) & (table["paper"] == paper), "claim"].tolist()


def condition(name: str) -> Measured:
    """What was measured for a condition of a claim."""
    row = conditions().set_index("condition").loc[name]
    return Measured(row["value"], row["low"], row["high"], int(row["n"]), row["over"])


def listed(names: Iterable[str]) -> str:
    """`a, b and c`; `none` for none."""
    *first, last = list(names) or ["none"]
    return f"{', '.join(first)} and {last}" if first else last


@cache
def facts() -> dict[str, Any]:
    """The names that the template may use."""
    comparisons = {one.name: Comparison(one.path) for one in shipped_comparisons()}
    lengths = shares_table()["tokens"]
    (worst_pair,) = [row for row in _results() if row["measure"] == "I_on"]
    own = (
        run,
        over,
        numbers,
        seconds,
        threshold,
        picture,
        subspaces,
        text,
        step,
        more_subspaces,
        speed,
        claims,
        condition,
        listed,
        min,
        max,
        len,
        round,
        all,
    )
    return {
        **{function.__name__: function for function in own},
        **{name: value for name, value in vars(claim_rules).items() if name.isupper()},
        **comparisons,
        "WORST": WORST,
        "workload": workload,
        "generation": generation,
        "every": list(SEEDS),
        "unlabelled": [f"unsupervised-{seed}" for seed in range(3)],
        "patterns": over(SEEDS, "exact_match", "any pattern", split="test_two_skills"),
        "worst_pair": run("recommended-0", "I_on", "oracle", part=worst_pair["part"]),
        "base_probe": run("recommended-0", "probe_accuracy", "off", part="base states"),
        "shortest": int(lengths.min()),
        "longest": int(lengths.max()),
        "pocket": _pocket(),
    }


def _pocket() -> dict[str, Any]:
    return json.loads((ROOT / "assets/pocket/config.json").read_text(encoding="utf-8"))


def value_of(expression: str) -> Any:
    """What an expression of the template comes to."""
    return eval(" ".join(expression.split()), facts().copy())


def blocks(template: str) -> list[str]:
    """Paragraphs, tables and list items, each with the comments above it."""
    found, previous = [""], ""
    for line in template.splitlines():
        comment, item = line.startswith("<!--"), line.startswith("- ")
        starts = (comment or item) and not previous.startswith("<!--")
        if not line or (starts and found[-1]):
            found.append("")
        found[-1] += f"{line}\n" if line else ""
        previous = line
    return [block for block in found if block]


def rendered(template: str) -> str:
    """The Markdown text, with its numbers and lines of at most 100 characters."""
    filled = PLACE.sub(
        lambda found: format(value_of(found[1]), found[2] or ""), COMMENT.sub("", template)
    )
    return "\n\n".join(_wrapped(block) for block in filled.strip().split("\n\n")) + "\n"


def _wrapped(block: str) -> str:
    if block.startswith(("|", "    ", "```", "#")):
        return block
    items = re.split(r"\n(?=- )", block)
    return "\n".join(
        textwrap.fill(
            " ".join(item.split()),
            100,
            subsequent_indent="  " if item.startswith("- ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for item in items
    )


@dataclass(frozen=True)
class Text:
    """A page, or the part of one between two headings, that a template gives."""

    template: Path
    page: Path
    heading: str = ""
    following: str = ""

    def wanted(self) -> str:
        """What the template and the files give."""
        return rendered(self.template.read_text(encoding="utf-8"))

    def present(self) -> str:
        """What stands in the page."""
        page = self.page.read_text(encoding="utf-8")
        if not self.heading:
            return page
        return page.partition(f"{self.heading}\n\n")[2].partition(f"\n{self.following}\n")[0]

    def write(self) -> None:
        """Bring the page up to date; what the template does not give stays."""
        page = self.page.read_text(encoding="utf-8") if self.heading else self.wanted()
        if self.heading:
            page = page.replace(self.present(), self.wanted())
        self.page.write_text(page, encoding="utf-8")


TEXTS = {
    "results": Text(_FOLDER / "results.md", ROOT / "docs/results.md"),
    "findings": Text(_FOLDER / "findings.md", ROOT / "README.md", "## Findings", "## Pages"),
}

if __name__ == "__main__":
    for measured in TEXTS.values():
        measured.write()
