"""Greedy generation of each method against the untouched model, on the CPU.

    python -m benchmarks.generation [--rounds 24] [--save]

One prompt, then eight, of 16 tokens; 48 new tokens each. Each library runs in a process of its own,
which takes turns between the untouched model, at two places of a rotating round, and its methods.
Printed is the speed: the median over the rounds of the mean time of the round's two untouched
answers over the time of the method's. 1 is the speed of the base.
"""

import argparse
import statistics
from typing import Any

from benchmarks import results
from benchmarks.environments import PEERS
from benchmarks.training_step import limits_of, measure_libraries
from benchmarks.workload import ratio

PROMPT, NEW = 16, 48


def lines_of(seconds: dict[str, Any], n_tokens: int) -> dict[str, list[str]]:
    """A line for each method: tokens per second, and the speed relative to the base."""
    limits = limits_of(seconds, -1)
    return {
        name: [
            f"{n_tokens / statistics.median(epochs[-1]):.0f}",
            f"{1 / ratio(epochs[-1], limits):.3f}",
        ]
        for name, epochs in seconds.items()
    }


def of_batch(rows: int, args: argparse.Namespace) -> Any:
    """The table of one batch size, the raw seconds, and the versions that ran."""
    task = {
        "what": "generation",
        "rows": rows,
        "prompt_tokens": PROMPT,
        "new_tokens": NEW,
        "warm_up": 3,
        "rounds": args.rounds,
        "threads": args.threads,
    }
    lines, raw, versions = measure_libraries(
        args.libraries,
        lambda _: task,
        lambda seconds: lines_of(seconds, rows * NEW),
        "the two",
    )
    return results.table(["Method", "Tokens per second", "Speed"], lines), raw, versions


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--libraries", nargs="+", default=["csreft", *PEERS])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", action="store_true", help="keep the page in benchmarks/results")
    args = parser.parse_args()
    about: dict[str, Any] = {"machine": results.machine(), "threads": args.threads}
    parts, raw = [], {}
    for rows in args.batch:
        table, raw[f"batch {rows}"], versions = of_batch(rows, args)
        parts += [f"## Batch of {rows}", table]
        about |= versions
    name = "generation" if args.save else None
    results.publish("Generation against the base", parts, about, raw, name)


if __name__ == "__main__":
    main()
