"""One process of a comparison: measures one library beside the untouched model, prints JSON.

    python -m benchmarks.measure '{"what": "training", "library": "csreft", "vocabulary": 1000}'

`training_step` and `generation` start it, each library in its own environment.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import LlamaForCausalLM

from benchmarks import peer_methods
from benchmarks.workload import (
    BATCH,
    Seconds,
    epochs,
    frozen_limit,
    interleave,
    llama,
    samples,
)

# The untouched model has two places in each round; how far they differ is the noise.
REFERENCES = ("untouched", "untouched again")
LIBRARIES = ("csreft", "pyreft", "adapters", "peft")
PACKAGES = ("torch", "transformers", "pyreft", "pyvene", "adapters", "peft")


def training(task: dict[str, Any], folder: Path) -> Seconds:
    """Seconds of training steps on the same shuffled batches of unequal lengths."""
    vocabulary, n_batches = task["vocabulary"], task["batches"]
    data = samples(n_batches * BATCH, vocabulary)
    model = llama(vocabulary)
    limit = frozen_limit(model, data)
    if task["library"] == "csreft":
        steps = _our_steps(task, model, data, folder)
    else:
        steps = peer_methods.STEPS[task["library"]](vocabulary, data)
    first, again = REFERENCES
    contestants = _with_references(limit, steps, first, again)
    return interleave(contestants, epochs(n_batches, task["epochs"]))


def _our_steps(
    task: dict[str, Any], model: LlamaForCausalLM, data: Any, folder: Path
) -> dict[str, Callable[..., object]]:
    from benchmarks.our_methods import ON_LAST, ON_PROMPT, training_step

    if "skills" in task:
        return {
            f"k = {k}": training_step(model, data, folder / f"{k}", k=k, keep=True)
            for k in task["skills"]
        }
    contestants = (
        ("CS-ReFT", "recommended", ON_PROMPT),
        (f"CS-ReFT at {ON_LAST}", "recommended", ON_LAST),
        ("LoReFT of ours", "loreft", ON_PROMPT),
    )
    return {
        f"{name}{', kept states' if keep else ''}": training_step(
            model, data, folder / f"{name}-{keep}", preset=preset, positions=positions, keep=keep
        )
        for name, preset, positions in contestants
        for keep in (True, False)
    }


def generation(task: dict[str, Any], _folder: Path) -> Seconds:
    """Seconds of greedy answers, exactly so many tokens long."""
    vocabulary = 1000
    generator = torch.Generator().manual_seed(0)
    shape = (task["rows"], task["prompt_tokens"])
    ids = torch.randint(3, vocabulary, shape, generator=generator)
    settings = {"max_new_tokens": task["new_tokens"], "do_sample": False, "pad_token_id": 0}
    model = llama(vocabulary)
    contestants = {
        name: _answer_function(generate, ids, settings)
        for name, generate in _generations(task["library"], model).items()
    }
    reference = _answer_function(_untouched_generate(model), ids, settings)
    contestants = _with_references(reference, contestants, *REFERENCES)
    rounds = [range(task["warm_up"]), range(task["rounds"])]
    return {name: epochs[1:] for name, epochs in interleave(contestants, rounds).items()}


def _generations(library: str, model: LlamaForCausalLM) -> dict[str, Callable[..., torch.Tensor]]:
    if library != "csreft":
        return peer_methods.GENERATIONS[library](model.config.vocab_size)
    from benchmarks.our_methods import ON_PROMPT
    from benchmarks.our_methods import generation as ours

    return {
        "CS-ReFT, prompt only": ours(model, ON_PROMPT),
        "CS-ReFT, every token": ours(model, "all"),
    }


def _untouched_generate(model: LlamaForCausalLM) -> Callable[..., torch.Tensor]:
    assert model.generation_config is not None
    model.generation_config.eos_token_id = None

    def generate(input_ids: torch.Tensor, **settings: Any) -> torch.Tensor:
        mask = torch.ones_like(input_ids)
        return model.generate(input_ids=input_ids, attention_mask=mask, **settings)  # type: ignore[operator]

    return generate


def _answer_function(
    generate: Callable[..., torch.Tensor], ids: torch.Tensor, settings: dict[str, Any]
) -> Callable[[object], None]:
    whole = ids.shape[1] + settings["max_new_tokens"]

    def answer(_round: object) -> None:
        with torch.no_grad():
            tokens = generate(ids, **settings)
        assert tokens.shape == (len(ids), whole), f"answered {tuple(tokens.shape)}"

    return answer


def _with_references(
    reference: Callable[..., object], others: Mapping[str, Callable[..., object]], *names: str
) -> dict[str, Callable[..., object]]:
    """The reference first, and once more in the middle of the others."""
    middle = len(others) // 2
    pairs = list(others.items())
    first, again = names
    return dict([(first, reference), *pairs[:middle], (again, reference), *pairs[middle:]])


def versions() -> dict[str, str]:
    """What is installed here of the packages that matter."""
    installed = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


def main() -> None:
    """Measure what the JSON argument asks for."""
    task = json.loads(sys.argv[1])
    torch.set_num_threads(task["threads"])
    transformers.logging.set_verbosity_error()
    function = {"training": training, "generation": generation}[task["what"]]
    with tempfile.TemporaryDirectory() as folder:
        seconds = function(task, Path(folder))
    print(json.dumps({"versions": versions(), "seconds": seconds}))


if __name__ == "__main__":
    main()
