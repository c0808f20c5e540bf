"""How long the Router page needs for a prompt that it has never seen, and 2^k patterns at once.

    python -m benchmarks.router_page

First: tables and figures of one new prompt, through the functions that the page calls, without any
cache. Second: one prompt under all 2^k gate patterns in one forward, against one forward of 2^k
different prompts of the same length, taking turns; the ratio is the median over the rounds.
"""

import argparse
import random
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch

from csreft_core.analysis.gates import sentences as gate_sentences
from csreft_core.analysis.gates import tables as gates
from csreft_core.analysis.gates import word_sentences, words
from csreft_core.analysis.subject import Subject, open_subject
from csreft_core.charts.gates import figures as gate_charts
from csreft_core.charts.gates import maps as gate_maps
from csreft_core.charts.gates import words as word_charts
from csreft_core.skills.encoding import prompt_ids

ROOT = Path(__file__).parents[1]


def new_prompts(subject: Subject, n: int, n_tokens: int, seed: int = 0) -> list[str]:
    """Different prompts of exactly so many tokens, from the words of the run's data."""
    tokenizer, template = subject.engine.base.tokenizer, subject.template
    rng = random.Random(seed)
    vocabulary = sorted({word for row in subject.skill_set.rows for word in row.prompt.split()})
    prompts: dict[str, None] = {}
    while len(prompts) < n:
        words_ = [rng.choice(vocabulary) for _ in range(n_tokens)]
        while words_ and len(prompt_ids(" ".join(words_), tokenizer, template)) > n_tokens:
            words_.pop()
        prompt = " ".join(words_)
        if words_ and len(prompt_ids(prompt, tokenizer, template)) == n_tokens:
            prompts[prompt] = None
    return list(prompts)


def all_figures(subject: Subject, prompt: str, pinned: str) -> None:
    """Every table, figure and sentence of the page that depends on the prompt."""
    names = subject.skills
    table = gates.gates_table(subject, prompts=(prompt,))
    gate_charts.gate_bars(table, names, threshold=0.5).to_json()
    gate_sentences.sentence_prompt_gates(table)
    table = gates.tokens_table(subject, prompts=(prompt,))
    if len(table):
        gate_maps.token_map(table, names).to_json()
        gate_sentences.sentence_tokens(table)
    table = words.words_table(subject, prompts=(prompt,))
    word_charts.word_map(table, names).to_json()
    word_sentences.sentence_word_map(table)
    word_charts.word_bars(table, None, names).to_json()
    word_sentences.sentence_words(table)
    table = gates.difference_table(subject, prompts=(pinned, prompt))
    gate_charts.gate_difference(table, names).to_json()
    gate_sentences.sentence_difference(table)


def measure_prompts(subject: Subject, prompts: list[str]) -> list[float]:
    """Seconds for each prompt but the first, which warms everything up."""
    seconds = []
    for prompt in prompts:
        start = time.perf_counter()
        all_figures(subject, prompt, prompts[0])
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def measure_patterns(subject: Subject, prompts: list[str], rounds: int) -> list[float]:
    """Of each round, the time of 2^k patterns of one prompt over that of 2^k plain prompts."""
    patterns = torch.tensor(list(product((0.0, 1.0), repeat=subject.adapter.n_subspaces)))
    plain, n = prompts[: len(patterns)], len(patterns)
    engine, ratios = subject.engine, []

    def seconds_of(texts: list[str], setting: str | torch.Tensor) -> float:
        start = time.perf_counter()
        engine.trace(subject.adapter, texts, setting, template=subject.template)
        return time.perf_counter() - start

    for number in range(rounds + 3):
        pair = {
            "patterns": lambda: seconds_of([prompts[-1]] * n, patterns),
            "plain": lambda: seconds_of(plain, "learned"),
        }
        # Taking turns, each one first every second time.
        order = sorted(pair, reverse=bool(number % 2))
        seconds = {name: pair[name]() for name in order}
        ratios.append(seconds["patterns"] / seconds["plain"])
    return ratios[3:]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", default=str(ROOT / "assets/examples/recommended-0"))
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=24, help="of each prompt, template included")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    subject = open_subject(args.run)
    n_patterns = 2**subject.adapter.n_subspaces
    prompts = new_prompts(subject, max(args.prompts, n_patterns) + 1, args.tokens)
    seconds = 1000 * np.array(measure_prompts(subject, prompts[: args.prompts + 1]))
    print(
        f"own prompt to all figures, {len(seconds)} new prompts of {args.tokens} tokens: "
        f"median {np.median(seconds):.0f} ms, p95 {np.percentile(seconds, 95):.0f} ms"
    )
    ratios = measure_patterns(subject, prompts, args.rounds)
    print(
        f"{n_patterns} patterns of one prompt in one forward, against {n_patterns} plain prompts: "
        f"{np.median(ratios):.2f} times (median of {len(ratios)} rounds)"
    )


if __name__ == "__main__":
    main()
