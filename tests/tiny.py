"""Small adapters, bases and a tokeniser for the tests of the numerics."""

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from csreft_core.base.load import Base, freeze
from csreft_core.config import AdapterConfig, RouterConfig
from csreft_core.reft.adapter import CSReFT
from csreft_core.reft.adapter_spec import AdapterSpec

N_TOKENS = 96


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """96 words: <pad> 0, <bos> 1, <eos> 2, w3 to w94 and `?` 95, which no prompt needs."""
    words = ["<pad>", "<bos>", "<eos>", *(f"w{i}" for i in range(3, N_TOKENS - 1)), "?"]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="?",
    )


def tiny_base(model: PreTrainedModel) -> Base:
    """A frozen base from a random model."""
    return freeze(model, tiny_tokenizer(), base_id="tiny")


def make_adapter(
    base: Base | None = None,
    *,
    k: int = 2,
    d_model: int = 32,
    n_layers: int = 3,
    router: RouterConfig | None = None,
    moved: float = 1.0,
    seed: int = 0,
    **settings: Any,
) -> CSReFT:
    """An adapter whose W and b are moved off the start, so that its edits are large.

    Args:
        base: Gives width, layers and fingerprint.
        moved: Standard deviation of what is added to W and b; 0 leaves the start.
        settings: Fields of `AdapterConfig`.
    """
    names = tuple(f"skill {i}" for i in range(k))
    spec = AdapterSpec(
        d_model=base.d_model if base else d_model,
        n_layers=base.n_layers if base else n_layers,
        names=names,
        skills=names,
        base_fingerprint=base.fingerprint if base else "0" * 64,
        adapter=AdapterConfig(**{"layers": (1,), **settings}),
        router=router or RouterConfig(),
    )
    adapter = CSReFT(spec, torch.Generator().manual_seed(seed)).eval()
    move(adapter, moved, seed)
    return adapter


@torch.no_grad()
def move(adapter: CSReFT, size: float, seed: int) -> None:
    """Add noise to W and b of every layer."""
    generator = torch.Generator().manual_seed(seed + 1)
    for layer in adapter.layers:
        subspaces = adapter.at(layer)
        for parameter in (subspaces.W, subspaces.b):
            if parameter is not None:
                parameter += size * torch.randn(parameter.shape, generator=generator)


def tokens(*lengths: int, seed: int = 0) -> list[torch.Tensor]:
    """Random prompts of these lengths, without the three special tokens."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, N_TOKENS - 1, (n,), generator=generator) for n in lengths]


def padded(rows: list[torch.Tensor], side: str = "left") -> dict[str, torch.Tensor]:
    """Input ids and attention mask of rows of different lengths."""
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        part = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[i, part] = row
        mask[i, part] = 1
    return {"input_ids": ids, "attention_mask": mask}
