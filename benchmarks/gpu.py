"""Training step, memory and generation on a GPU, for shapes up to Llama-2-7B.

    python -m benchmarks.gpu [--shape 7B 0.5B pocket] [--precision bf16 nf4] [--save]
    python -m benchmarks.gpu --small        (a small shape on the CPU, to see that it runs)

Batch 4 x 512, the last quarter is the answer; four edited layers, k = 4, r = 4. All contestants
share one base and take turns in a rotating round; the ratio is the median over the rounds of the
time over that of the frozen limit with the same checkpointing, which has two places in each round.
The limit is forward and backward of the base with its own loss and one trainable vector at the
first edited block. The peak is all that torch's allocator held, weights included, in a step of its
own; on the CPU the bytes of tensors are counted.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks import results
from benchmarks.gpu_contestants import SKILLS, Contestant, contestants, training_config
from benchmarks.our_methods import adapter_of
from benchmarks.random_models import SHAPES, build
from benchmarks.workload import ratio
from csreft_core.attachment.attach import attach
from csreft_core.base.load import Base
from csreft_core.base.memory.use import measure_use

WARM_UP = 2
N_ANSWER = 48
GIB = 2**30


def wait_for(device: torch.device) -> None:
    """Until all that was started on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(step: Callable[[], object], device: torch.device) -> float:
    """Seconds."""
    wait_for(device)
    started = time.perf_counter()
    step()
    wait_for(device)
    return time.perf_counter() - started


def rounds(
    taking_turns: dict[str, Contestant], n: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each contestant in each round."""
    names = list(taking_turns)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(WARM_UP + n):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            with taking_turns[name].ready():
                seconds = seconds_of(taking_turns[name].step, device)
            if turn >= WARM_UP:
                times[name].append(seconds)
    return times


def peak(base: Base, contestant: Contestant) -> int:
    """Bytes at the peak of one step, weights included."""
    with contestant.ready():
        return measure_use(base.model, contestant.step, contestant.tensors).total


def training_table(
    base: Base, args: argparse.Namespace, taking_turns: dict[str, Contestant]
) -> tuple[str, dict[str, list[float]]]:
    """Times, ratios to the limit with the same checkpointing, tokens per second, peak memory."""
    seconds = rounds(taking_turns, args.rounds, base.device)
    lines = []
    for name, times in seconds.items():
        contestant = taking_turns[name]
        references = [seconds[contestant.reference], seconds[f"{contestant.reference} again"]]
        middle = statistics.median(times)
        lines.append(
            [
                name,
                f"{1000 * middle:.0f}",
                f"{ratio(times, references):.3f}",
                f"{args.batch * args.length / middle:.0f}",
                f"{peak(base, contestant) / GIB:.2f}",
            ]
        )
    columns = ["Step", "ms", "Ratio to its limit", "Tokens per second", "Peak GiB"]
    return results.table(columns, lines), seconds


def generation_table(
    base: Base, args: argparse.Namespace, layers: tuple[int, ...]
) -> tuple[str, dict[str, list[float]]]:
    """Speed of greedy answers of `N_ANSWER` tokens to prompts of 16, relative to the base's."""
    assert base.model.generation_config is not None
    base.model.generation_config.eos_token_id = None
    lines, raw = [], {}
    for n in (1, 8):
        ids = torch.randint(3, 200, (n, 16), device=base.device)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pad_token_id": 0}

        def answer(inputs: dict[str, Any] = inputs) -> None:
            base.model.generate(**inputs, max_new_tokens=N_ANSWER, do_sample=False)  # type: ignore[operator]

        def with_adapter(positions: str, answer: Callable[[], None] = answer) -> Contestant:
            config = training_config(args, layers, recompute=False, keep=False)
            config = replace(config, adapter=replace(config.adapter, positions=positions))
            adapter = adapter_of(config, base, SKILLS).eval()
            return Contestant(answer, lambda: attach(base, adapter), "base")

        bare = Contestant(answer, nullcontext, "base")
        taking_turns = {
            "base": bare,
            "CS-ReFT, prompt only": with_adapter("f4+l4"),
            "base again": bare,
            "CS-ReFT, every token": with_adapter("all"),
        }
        seconds = rounds(taking_turns, args.rounds, base.device)
        references = [seconds["base"], seconds["base again"]]
        lines += [
            [
                f"{name}, batch of {n}",
                f"{N_ANSWER * n / statistics.median(times):.0f}",
                f"{1 / ratio(times, references):.3f}",
            ]
            for name, times in seconds.items()
        ]
        raw |= {f"{name}, batch of {n}": times for name, times in seconds.items()}
    return results.table(["Answer", "Tokens per second", "Speed"], lines), raw


def where_the_time_goes(contestant: Contestant, device: torch.device) -> str:
    """The operations that take longest in a step, by torch's profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with contestant.ready(), torch.profiler.profile(activities=activities) as profile:
        contestant.step()
        wait_for(device)
    by = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    table = profile.key_averages().table(sort_by=by, row_limit=15, max_name_column_width=48)
    return f"    {table.strip()}".replace("\n", "\n    ")


def compile_blocks(base: Base, mode: str) -> None:
    """Compile each block, for the limit and for CS-ReFT alike; what is put around it stays."""
    for block in base.blocks:
        block.__dict__["forward"] = torch.compile(block.forward, mode=mode)


def measure(args: argparse.Namespace, shape: str, precision: str) -> tuple[list[str], Any]:
    """All tables of one shape and precision."""
    title = f"## {shape}, {precision}"
    if precision == "nf4" and find_spec("bitsandbytes") is None:
        return [title, "Not measured: bitsandbytes missing."], {}
    base, layers = build(shape, precision, args.device), SHAPES[shape].layers
    if args.compile:
        compile_blocks(base, args.compile)
    # The pocket base reads 256 tokens at most.
    args = argparse.Namespace(**{**vars(args), "length": min(args.length, base.context or 10**9)})
    with tempfile.TemporaryDirectory() as folder:
        taking_turns = contestants(base, args, layers, Path(folder))
        table, training_s = training_table(base, args, taking_turns)
        profile = where_the_time_goes(taking_turns["CS-ReFT, kept states"], base.device)
    answers, generation_s = generation_table(base, args, layers)
    sizes = f"Batch {args.batch} x {args.length}, {base.n_parameters / 1e6:.0f} M parameters."
    parts = [title, sizes, table, answers, "A step with kept states:", profile]
    return parts, {"training": training_s, "generation": generation_s}


def about(device: torch.device, args: argparse.Namespace) -> dict[str, Any]:
    """Machine and versions."""
    packages = [name for name in ("torch", "transformers", "bitsandbytes") if find_spec(name)]
    facts = {"machine": results.machine(), "python": platform.python_version()}
    if device.type == "cuda":
        facts["gpu"] = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    if args.compile:
        facts["torch.compile"] = args.compile
    return facts | {name: metadata.version(name) for name in packages}


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["7B", "0.5B", "pocket"])
    parser.add_argument("--precision", nargs="+", default=["bf16", "nf4"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument(
        "--compile",
        choices=["default", "reduce-overhead"],
        help="torch.compile the blocks; reduce-overhead takes CUDA graphs",
    )
    parser.add_argument("--small", action="store_true", help="a small shape, 2 rounds, 4 x 64")
    parser.add_argument("--save", action="store_true", help="keep the page in benchmarks/results")
    args = parser.parse_args()
    if args.small:
        args.shape, args.length, args.rounds = ["small"], 64, 2
    device = torch.device(args.device)
    if device.type != "cuda" and set(args.shape) & {"7B", "0.5B"}:
        parser.error("the shapes 7B and 0.5B need a GPU; try --small")
    parts, raw = [], {}
    if device.type != "cuda":
        parts.append("**This has not run on a GPU.** It only shows that the script works.")
    for shape in args.shape:
        for precision in args.precision:
            sections, raw[f"{shape} {precision}"] = measure(args, shape, precision)
            parts += sections
    name = "gpu" if device.type == "cuda" else "gpu-not-run"
    results.publish("GPU", parts, about(device, args), raw, name if args.save else None)


if __name__ == "__main__":
    main()
