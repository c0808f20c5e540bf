"""A training step of each method against the frozen limit, on the CPU.

    python -m benchmarks.training_step [--vocabulary 1000 32000] [--skills 1 4 16 64] [--save]

The frozen limit is forward and backward of the untouched transformers model on the same batch, with
its own loss and one trainable vector at the output of the first edited block. Each library runs in
a process of its own, which takes turns between the limit, at two places of a rotating round, and
its methods; a ratio is the median over the rounds of the time over the mean of the round's two
limits. CS-ReFT with kept states computes them in its first epoch and uses them from the second on.

Then CS-ReFT alone: the step with k subspaces against that with the first of the given k.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

from benchmarks import results
from benchmarks.environments import PEERS, PeerMissing, measure
from benchmarks.measure import REFERENCES
from benchmarks.workload import ratio

NOISE = 0.05


def limits_of(seconds: dict[str, Any], epoch: int) -> list[list[float]]:
    """The two limits of every round of an epoch."""
    return [seconds[name][epoch] for name in REFERENCES]


def rows_of(seconds: dict[str, Any]) -> dict[str, list[str]]:
    """A line for each method: milliseconds, and the ratio to the limit in each epoch."""
    lines = {}
    for name, epochs in seconds.items():
        ratios = [
            f"{ratio(times, limits_of(seconds, epoch)):.3f}" for epoch, times in enumerate(epochs)
        ]
        lines[name] = [f"{1000 * statistics.median(epochs[-1]):.0f}", ratios[0], ratios[-1]]
    return lines


def disagreement(seconds: dict[str, Any]) -> float:
    """How far the two limits differ, as a share: the median over the rounds of the last epoch."""
    first, again = limits_of(seconds, -1)
    return abs(ratio(first, [again]) - 1)


def measure_libraries(
    libraries: list[str],
    task_of: Callable[[str], dict[str, Any]],
    lines_of: Callable[[dict[str, Any]], dict[str, list[str]]],
    what: str,
) -> tuple[list[list[str]], dict[str, Any], dict[str, str]]:
    """A line for each method of each library, the raw seconds, and the versions that ran.

    Args:
        libraries: Which.
        task_of: Library -> what its process is asked for.
        lines_of: Seconds -> the cells of each method.
        what: The two references, for the note that they differ.
    """
    lines, raw, versions = [], {}, {}
    for library in libraries:
        try:
            result = measure(library, task_of(library))
        except PeerMissing as missing:
            lines.append([library, f"not measured: {missing}"])
            continue
        raw[library], versions[library] = result["seconds"], result["versions"]
        far = disagreement(result["seconds"])
        note = "" if far <= NOISE else f" ({what} differ by {far:.0%}: too noisy)"
        for name, line in lines_of(result["seconds"]).items():
            label = f"{name} (process of {library}){note}" if name in REFERENCES else name
            lines.append([label, *line])
    return lines, raw, versions


def against_limit(vocabulary: int, libraries: list[str], args: argparse.Namespace) -> Any:
    """The table of one vocabulary, the raw seconds, and the versions that ran."""

    def task_of(library: str) -> dict[str, Any]:
        # Kept states are in use from the second epoch; the steps of others are all alike.
        own = library == "csreft"
        return {
            "what": "training",
            "vocabulary": vocabulary,
            "epochs": 2 if own else 1,
            "batches": args.batches if own else args.peer_batches,
            "threads": args.threads,
        }

    lines, raw, versions = measure_libraries(libraries, task_of, rows_of, "the two limits")
    columns = ["Method", "ms, last epoch", "Ratio, first epoch", "Ratio, last epoch"]
    return results.table(columns, lines), raw, versions


def by_skills(args: argparse.Namespace) -> Any:
    """The table of k subspaces and the raw seconds."""
    task = {
        "what": "training",
        "vocabulary": args.vocabulary[0],
        "batches": args.batches,
        "epochs": 2,
        "threads": args.threads,
        "skills": args.skills,
    }
    seconds = measure("csreft", task)["seconds"]
    few = seconds[f"k = {args.skills[0]}"]
    lines = [
        [name, f"{1000 * statistics.median(times[-1]):.0f}", f"{ratio(times[-1], [few[-1]]):.3f}"]
        for name, times in seconds.items()
    ]
    columns = ["CS-ReFT with kept states", "ms", f"Ratio to k = {args.skills[0]}"]
    return results.table(columns, lines), seconds


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[1000, 32000])
    parser.add_argument("--skills", type=int, nargs="*", default=[1, 4, 16, 64])
    parser.add_argument("--libraries", nargs="+", default=["csreft", *PEERS])
    parser.add_argument("--batches", type=int, default=64, help="of 16 samples, in an epoch")
    parser.add_argument("--peer-batches", type=int, default=32, help="for other libraries")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", action="store_true", help="keep the page in benchmarks/results")
    args = parser.parse_args()
    about: dict[str, Any] = {"machine": results.machine(), "threads": args.threads}
    parts, raw = [], {}
    for vocabulary in args.vocabulary:
        table, raw[f"vocabulary {vocabulary}"], versions = against_limit(
            vocabulary, args.libraries, args
        )
        parts += [f"## Vocabulary {vocabulary}", table]
        about |= versions
    if args.skills:
        table, raw["skills"] = by_skills(args)
        parts += [f"## Number of subspaces, vocabulary {args.vocabulary[0]}", table]
    name = "training-step" if args.save else None
    results.publish("Training step against the frozen limit", parts, about, raw, name)


if __name__ == "__main__":
    main()
