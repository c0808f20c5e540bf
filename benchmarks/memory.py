"""The memory estimate against what one training step really uses, for several bases and precisions.

    python -m benchmarks.memory [--only pocket]

On the CPU the bytes of tensors are counted (`memory.use.LiveBytes`), on a GPU torch's allocator is
asked. The 7 B shape needs a GPU; without one its estimate is printed, marked as not measured.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from csreft_core.attachment.attach import Attachment, attach
from csreft_core.base.load import Base, load_base
from csreft_core.base.memory.need import Need, need
from csreft_core.base.memory.use import Use, estimate_error, measure_use
from csreft_core.base.shapes import shape_of_description
from csreft_core.cli.output import rows_text
from csreft_core.config import ASSETS, BaseConfig, Config, preset
from csreft_core.methods.build import build_method
from csreft_core.reft.tuning import Tuning
from csreft_core.skills.encoding import Example
from csreft_core.skills.skill_set import Row
from csreft_core.training.loss import Window, batch_loss
from csreft_core.training.state import adamw, autocast_type

SKILLS = ("one", "two", "three", "four")
LLAMA_100M = {
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA_7B = {
    **LLAMA_100M,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "tie_word_embeddings": False,
}


def save_random(about: LlamaConfig, folder: Path) -> str:
    """A model with random weights, and pocket's tokeniser, which only has to be there."""
    torch.manual_seed(0)
    LlamaForCausalLM(about).save_pretrained(folder)
    for path in (ASSETS / "pocket").glob("*token*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return str(folder)


def config_on(base: BaseConfig, layers: tuple[int, ...], *, checkpointing: bool = False) -> Config:
    """The recommended preset on a base, with edits at these layers."""
    start = preset("recommended")
    return replace(
        start,
        base=base,
        adapter=replace(start.adapter, layers=layers, rank=4),
        train=replace(start.train, checkpointing=checkpointing),
    )


def rows_of(batch: int, length: int, answer: int, vocab: int) -> list[Example]:
    """Random rows of unequal lengths, the first of full length; all answers are equally long."""
    draw = torch.Generator().manual_seed(0)
    lengths = [length - (i % 4) * length // 8 for i in range(batch)]
    ids = [torch.randint(3, vocab, (n,), generator=draw).tolist() for n in lengths]
    return [Example(tuple(row[:-answer]), tuple(row[-answer:])) for row in ids]


def step_use(base: Base, config: Config, *, batch: int, length: int, answer: int) -> Use:
    """What one training step takes, after a first one that has made the optimiser's state."""
    adapter = build_method(config, base, SKILLS).train()
    optimizer = adamw(adapter, config)
    vocab = base.model.config.get_text_config().vocab_size
    examples = rows_of(batch, length, answer, vocab)

    autocast, _ = autocast_type(config, base)
    with attach(base, autocast=autocast) as attachment:

        def step() -> None:
            _step(attachment, adapter, config, examples, optimizer)

        step()
        optimizer.zero_grad(set_to_none=True)
        states = [t for state in optimizer.state.values() for t in state.values()]
        return measure_use(base.model, step, [*adapter.parameters(), *states])


def _step(
    attachment: Attachment,
    adapter: Tuning,
    config: Config,
    examples: list[Example],
    optimizer: torch.optim.Optimizer,
) -> None:
    rows = [Row((SKILLS[i % 4],), "p", "r", "train") for i in range(len(examples))]
    n_tokens = sum(len(example.answer) for example in examples)
    checkpointing = config.train.checkpointing
    with attachment.checkpointing(min(adapter.layers)) if checkpointing else nullcontext():
        loss = batch_loss(
            attachment,
            adapter,
            config,
            rows,
            examples,
            n_tokens=n_tokens,
            n_rows=len(rows),
            window=Window(),
        )
    loss.backward()
    optimizer.step()


def record(name: str, base: Base, config: Config, size: tuple[int, int, int]) -> dict[str, object]:
    """A line of the table; sizes in MB (10⁶ bytes), errors as shares of what is measured."""
    batch, length, answer = size
    estimate = need(
        shape_of_description(base.model.config), config, batch=batch, length=length, answer=answer
    )
    use = step_use(base, config, batch=batch, length=length, answer=answer)
    off = estimate_error(estimate, use)
    return {
        **_of_estimate(name, config, size, estimate),
        "measured weights": f"{use.weights / 1e6:.1f}",
        "measured all": f"{use.total / 1e6:.1f}",
        "weights off": f"{off['weights']:+.1%}",
        "all off": f"{off['total']:+.1%}",
    }


def _of_estimate(
    name: str, config: Config, size: tuple[int, int, int], estimate: Need
) -> dict[str, object]:
    return {
        "base": name,
        "precision": config.base.precision,
        "checkpointing": "yes" if config.train.checkpointing else "no",
        "batch x length": f"{size[0]} x {size[1]}",
        "weights": f"{estimate.weights / 1e6:.1f}",
        "all": f"{(estimate.total - estimate.margin) / 1e6:.1f}",
    }


def records(only: str | None, folder: Path) -> Iterator[dict[str, object]]:
    """Every line: pocket, a 100 M Llama, and a 7 B Llama where there is a GPU for it."""
    bases = {
        "pocket": ("pocket", (1,), (32, 64, 16)),
        "100 M": (str(folder / "100m"), (3, 6), (4, 256, 64)),
    }
    for name, (path, layers, size) in bases.items():
        if only not in (None, name):
            continue
        if name == "100 M":
            save_random(LlamaConfig(**LLAMA_100M), Path(path))
        for precision in ("fp32", "bf16", "nf4"):
            config = BaseConfig(path=path, precision=precision)
            base = load_base(config)
            for checkpointing in (False, True):
                yield record(
                    name, base, config_on(config, layers, checkpointing=checkpointing), size
                )
    if only in (None, "7 B"):
        yield from _seven_billion()


def _seven_billion() -> Iterator[dict[str, object]]:
    shape, size = shape_of_description(LlamaConfig(**LLAMA_7B)), (4, 512, 128)
    for precision in ("bf16", "nf4"):
        config = config_on(
            BaseConfig(precision=precision, compute="bf16"), (3, 9, 18, 24), checkpointing=True
        )
        estimate = need(shape, config, batch=4, length=512, answer=128)
        yield {
            **_of_estimate("7 B", config, size, estimate),
            **dict.fromkeys(
                ("measured weights", "measured all", "weights off", "all off"), "not measured"
            ),
        }


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--only", choices=("pocket", "100 M", "7 B"))
    with tempfile.TemporaryDirectory() as folder:
        rows = [*records(arguments.parse_args().only, Path(folder))]
    print(rows_text(rows))


if __name__ == "__main__":
    main()
