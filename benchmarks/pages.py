"""What the default views of the pages cost on a run: CPU seconds of each table, without a cache.

    python -m benchmarks.pages --run runs/mine

First the views that need many rows, a table each, as the pages ask for them. Then the panels about
one prompt, over prompts that were never asked, all tables of a page together: median and p95. CPU
seconds are those of all threads of this process; the wall time stands beside them.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from csreft_core.analysis.answers import tables as answers
from csreft_core.analysis.gates import tables as gates
from csreft_core.analysis.gates import words
from csreft_core.analysis.geometry import tables as geometry
from csreft_core.analysis.interference import prompt as one_prompt
from csreft_core.analysis.interference import tables as interference
from csreft_core.analysis.states import tables as states
from csreft_core.analysis.subject import Subject, open_subject
from csreft_core.app.gates.rows import PER_SKILL

ROOT = Path(__file__).parents[1]

Table = Callable[[Subject], object]
Panel = Callable[[Subject, str], object]


def many_rows() -> dict[str, Table]:
    """The default views that need many rows, by name, with the arguments of the pages."""
    router = {figure.name: (figure.make, rows) for figure, rows in PER_SKILL.items()}
    return {
        **{
            f"Router: {name}": lambda s, make=make, rows=rows: make(s, per_skill=rows)
            for name, (make, rows) in router.items()
        },
        "States: joint axes": lambda s: states.states_table(s, basis="joint"),
        "States: base axes": lambda s: states.states_table(s, basis="base"),
        "States: scree": states.scree_table,
        "States: coordinates": states.coordinates_table,
        "States: energy": states.energy_table,
        "States: size": lambda s: states.size_table(s, places=8),
        "States: separation": lambda s: states.separation_table(s, per_skill=24),
        "Interference: settings": lambda s: interference.settings_table(s, per_skill=30),
        "Interference: examples": lambda s: interference.examples_table(
            s, skill=s.skills[0], gates=s.trained_gates, per_skill=30
        ),
        "Interference: pairs": lambda s: interference.pairs_table(
            s, measure="I_on" if set(s.skills) & set(s.adapter.names) else "S", per_skill=30
        ),
        "Interference: regret": lambda s: interference.regret_table(s, per_skill=30),
        "Geometry: pairs": geometry.pairs_table,
        "Geometry: gram": geometry.gram_table,
        "Geometry: leaks": geometry.leaks_table,
        "Geometry: mixing": geometry.mixing_table,
    }


def _start(subject: Subject, prompt: str) -> None:
    gates.gates_table(subject, prompts=(prompt,), gates=_setting(subject))
    for adapter in (None, subject.adapter):
        subject.engine.generate(adapter, prompt, _setting(subject), template=subject.template)


def _setting(subject: Subject) -> str:
    return subject.gates_as_trained(())


def _router(subject: Subject, prompt: str) -> None:
    gates.gates_table(subject, prompts=(prompt,), gates=_setting(subject))
    gates.tokens_table(subject, prompts=(prompt,))
    gates.difference_table(subject, prompts=(subject.split("test")[0].prompt, prompt))
    if subject.adapter.router is not None:
        words.words_table(subject, prompts=(prompt,))


def _states(subject: Subject, prompt: str) -> None:
    setting = _setting(subject)
    for basis in ("joint", "base"):
        states.states_table(subject, prompts=(prompt,), gates=setting, basis=basis)
    states.coordinates_table(subject, prompts=(prompt,), gates=setting)
    states.size_table(subject, prompts=(prompt,), gates=setting, places=8)


def _interference(subject: Subject, prompt: str) -> None:
    answer = subject.engine.generate(
        subject.adapter, prompt, _setting(subject), template=subject.template
    ).text
    asked = {"prompts": (prompt,), "answer": answer}
    one_prompt.patterns_table(subject, **asked, gates=_setting(subject))
    one_prompt.shapley_table(subject, **asked)
    one_prompt.interactions_table(subject, **asked)
    one_prompt.tokens_table(subject, prompts=(prompt,), gates=_setting(subject))


def _first_tokens(subject: Subject, prompt: str) -> None:
    """Of the two columns that Compare asks by default."""
    for adapter in (None, subject.adapter):
        subject.engine.generate(
            adapter, prompt, _setting(subject), template=subject.template, max_new_tokens=1
        )


def _compare(subject: Subject, prompt: str) -> None:
    answers.next_token_table(subject, prompts=(prompt,), gates=_setting(subject))
    answers.dose_table(subject, prompts=(prompt,), gates=_setting(subject))


PANELS: dict[str, Panel] = {
    "Start": _start,
    "Router": _router,
    "States": _states,
    "Interference": _interference,
    "Compare: first tokens": _first_tokens,
    "Compare: both figures": _compare,
}
"""What a page computes about one prompt."""


def new_prompts(subject: Subject, n: int) -> list[str]:
    """Prompts in words of the run's data that no row has."""
    known = {row.prompt for row in subject.skill_set.rows}
    openings = ("Please answer: {}", "I ask you: {}", "{} Tell me.", "Now, {}")
    rows = subject.split("train")
    texts = (
        openings[i % len(openings)].format(rows[(i * 37) % len(rows)].prompt)
        for i in range(len(rows) * len(openings))
    )
    return list(dict.fromkeys(text for text in texts if text not in known))[:n]


def seconds_of(work: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def measure_many(subject: Subject, named: Mapping[str, Table]) -> None:
    """Print what each table costs, one after the other, as a visitor of all views meets them."""
    print(f"{'view, many rows':36} {'CPU s':>8} {'wall s':>8}", flush=True)
    for name, table in named.items():
        cpu, wall = seconds_of(lambda table=table: table(subject))
        print(f"{name:36} {cpu:8.2f} {wall:8.2f}", flush=True)


def measure_prompts(subject: Subject, panels: Mapping[str, Panel], prompts: Sequence[str]) -> None:
    """Print what each page costs for a new prompt, once the first one has warmed it up."""
    print(f"{'page, one new prompt':36} {'CPU p50':>8} {'p95':>8} {'wall p50':>9} {'p95':>8}")
    for name, panel in panels.items():
        times = [seconds_of(lambda p=p, panel=panel: panel(subject, p)) for p in prompts][1:]
        p50, p95 = (np.percentile(np.array(times), q, axis=0) for q in (50, 95))
        print(f"{name:36} {p50[0]:8.2f} {p95[0]:8.2f} {p50[1]:9.2f} {p95[1]:8.2f}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", default=str(ROOT / "assets/examples/recommended-0"))
    parser.add_argument("--prompts", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="views and pages whose name has this in it")
    parser.add_argument("--prompts-only", action="store_true", help="no views of many rows")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    subject = open_subject(args.run)
    many = {k: v for k, v in many_rows().items() if args.only in k}
    panels = {k: v for k, v in PANELS.items() if args.only in k}
    if many and not args.prompts_only:
        measure_many(subject, many)
    if panels and args.prompts:
        measure_prompts(subject, panels, new_prompts(subject, args.prompts + 1))


if __name__ == "__main__":
    main()
