"""A training step of CS-ReFT against the frozen limit, on the CPU, in one process.

    python -m benchmarks.training_step [--vocabulary 1000] [--skills 4] [--batches 64]

The frozen limit is the forward and backward of the untouched transformers model on the same batch,
with its own loss and one trainable vector added to the output of the first edited block: what any
method has to pay that leaves the base as it is. It is measured at two places of every round. All
contestants see the same shuffled batches of unequal lengths; their order rotates from round to
round. Printed is the median over the rounds of the ratio to the mean of the round's two limits; the
first epoch, in which kept states are still being computed, stands in a line of its own.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from csreft_core.adapter import CSReFT, build_adapter
from csreft_core.base_models import Base, freeze
from csreft_core.config import PRESETS, Config, with_overrides
from csreft_core.evaluation import Encoded
from csreft_core.hooking import Attachment, attach
from csreft_core.kept_states import KeptStates, kept_layers
from csreft_core.objective import Window, batch_loss
from csreft_core.skills import Example, Row, collate, epoch_order
from csreft_core.training_state import adamw

LAYERS = (2, 4)
BATCH = 16
LONGEST = 64


class _NoTokeniser:
    pad_token_id = 0
    eos_token_id = 2


def base_of(vocabulary: int) -> Base:
    """A random Llama: hidden 256, six blocks."""
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=256, intermediate_size=688, num_hidden_layers=6,
        num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=128, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    return freeze(LlamaForCausalLM(config), _NoTokeniser(), base_id="random")  # type: ignore[arg-type]


def rows_of(n: int, vocabulary: int, skills: tuple[str, ...]) -> Encoded:
    """Rows of 32 to 64 tokens; the last quarter is the answer."""
    draw = np.random.default_rng(0)
    rows, examples = [], []
    for i in range(n):
        length = int(draw.integers(LONGEST // 2, LONGEST + 1))
        ids = tuple(int(token) for token in draw.integers(3, vocabulary, length))
        cut = length - length // 4
        examples.append(Example(ids[:cut], ids[cut:]))
        rows.append(Row((skills[i % len(skills)],), "", "", "train"))
    return Encoded(tuple(rows), tuple(examples))


class FrozenLimit:
    """The base alone, with one trainable vector at the first edited block."""

    def __init__(self, base: Base, encoded: Encoded) -> None:
        self.base, self.encoded = base, encoded
        self.vector = torch.nn.Parameter(torch.zeros(base.d_model))
        self.optimizer = torch.optim.AdamW([self.vector], lr=1e-4)

    def step(self, taken: list[int]) -> None:
        """Forward, backward, optimiser."""
        batch = collate([self.encoded.examples[i] for i in taken], self.base.pad_id)
        handle = self.base.blocks[LAYERS[0]].register_forward_hook(
            lambda _module, _args, output: output + self.vector
        )
        self.optimizer.zero_grad(set_to_none=True)
        output = self.base.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels,
            use_cache=False,
        )  # fmt: skip
        output.loss.backward()
        self.optimizer.step()
        handle.remove()


class CSReFTStep:
    """The step of `csreft_core.training`, without its records."""

    def __init__(
        self, attachment: Attachment, config: Config, encoded: Encoded, kept: KeptStates | None
    ) -> None:
        self.attachment, self.config, self.encoded, self.kept = attachment, config, encoded, kept
        self.adapter = _adapter(attachment.base, config, encoded)
        self.optimizer = adamw(self.adapter, config)

    def use(self, attachment: Attachment) -> None:
        """Hooks for the next step."""
        self.attachment = attachment
        if self.kept is not None:
            self.kept.attachment = attachment

    def step(self, taken: list[int]) -> None:
        """Forward, backward, optimiser."""
        self.adapter.train()
        self.optimizer.zero_grad(set_to_none=True)
        examples = [self.encoded.examples[i] for i in taken]
        loss = batch_loss(
            self.attachment, self.adapter, self.config, [self.encoded.rows[i] for i in taken],
            examples, n_tokens=sum(len(e.answer) for e in examples), n_rows=len(taken),
            window=Window(), states=None if self.kept is None else self.kept.of(taken),
        )  # fmt: skip
        loss.backward()
        self.optimizer.step()


def _adapter(base: Base, config: Config, encoded: Encoded) -> CSReFT:
    skills = tuple(dict.fromkeys(row.skills[0] for row in encoded.rows))
    return build_adapter(
        config, d_model=base.d_model, n_layers=base.n_layers, skills=skills, base_fingerprint=""
    )


def config_of(preset: str) -> Config:
    """Rank 4 at two layers; `loreft` has one subspace of it."""
    layers = ",".join(map(str, LAYERS))
    changes = [f"adapter.layers=[{layers}]", "adapter.rank=4", f"train.batch_size={BATCH}"]
    return with_overrides(PRESETS[preset], changes)


def timed(step: Callable[[list[int]], None], taken: list[int]) -> float:
    """Seconds of one step."""
    started = time.perf_counter()
    step(taken)
    return time.perf_counter() - started


def measure(args: argparse.Namespace, folder: Path) -> dict[str, list[list[float]]]:
    """Ratios to the limit of each contestant in each epoch, and of the two limits to each other."""
    base = base_of(args.vocabulary)
    skills = tuple(f"skill {i}" for i in range(args.skills))
    encoded = rows_of(args.batches * BATCH, args.vocabulary, skills)
    n, config = len(encoded.rows), config_of("recommended")
    limit = FrozenLimit(base, encoded)
    names = ("limit", "csreft kept", "csreft", "limit again", "loreft kept", "loreft")
    found: dict[str, list[list[float]]] = {name: [[] for _ in range(args.epochs)] for name in names}
    # The limit runs without our hooks: the others attach for their own steps only.
    with attach(base) as attachment:
        contestants = {"limit": limit, "limit again": limit}
        for name, preset in (("csreft", "recommended"), ("loreft", "loreft")):
            chosen = config_of(preset)
            kept = KeptStates(
                attachment, encoded, layers=kept_layers(_adapter(base, config, encoded).spec),
                order=epoch_order(n, 0, 0), batch_size=BATCH, budget_bytes=2**30,
                folder=folder / name,
            )  # fmt: skip
            contestants[f"{name} kept"] = CSReFTStep(attachment, chosen, encoded, kept)
            contestants[name] = CSReFTStep(attachment, chosen, encoded, None)
    for epoch in range(args.epochs):
        order = epoch_order(n, 0, epoch)
        for turn in range(args.batches):
            taken = order[turn * BATCH : (turn + 1) * BATCH].tolist()
            rotated = [names[(turn + i) % len(names)] for i in range(len(names))]
            seconds = {name: _one(base, contestants[name], taken) for name in rotated}
            mean = (seconds["limit"] + seconds["limit again"]) / 2
            for name in names:
                found[name][epoch].append(seconds[name] / mean)
    return found


def _one(base: Base, contestant: FrozenLimit | CSReFTStep, taken: list[int]) -> float:
    if isinstance(contestant, FrozenLimit):
        return timed(contestant.step, taken)
    with attach(base) as attachment:
        contestant.use(attachment)
        return timed(contestant.step, taken)


def main() -> None:
    """Measure and print one line for each contestant and epoch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=1000)
    parser.add_argument("--skills", type=int, default=4)
    parser.add_argument("--batches", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args, Path(folder))
    print(f"vocabulary {args.vocabulary}, k {args.skills}, {args.batches} batches of {BATCH}")
    for name, epochs in found.items():
        medians = "  ".join(
            f"epoch {i + 1}: {statistics.median(ratios):.3f}" for i, ratios in enumerate(epochs)
        )
        print(f"{name:<12} {medians}")


if __name__ == "__main__":
    main()
