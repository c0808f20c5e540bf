"""The fetched base itself: it is the declared one, reads digits one by one, and stays plain."""

from typing import Any

import pytest
import torch

from csreft_core.attachment.attach import attach
from csreft_core.base.fetched import is_fetched
from csreft_core.base.load import Base, load_base
from csreft_core.config import BaseConfig, known_bases
from tests.tiny import make_adapter

KNOWN = known_bases()["smollm2"]
pytestmark = pytest.mark.skipif(
    not is_fetched(KNOWN), reason="smollm2 is not in the cache: python -m csreft_core fetch-base"
)
TEXTS = ("What is the plural of dog?", "Give the opposite of cold, in one word, and say why.")


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(BaseConfig(path="smollm2", device="cpu"))


def test_it_is_the_declared_base(base):
    assert base.fingerprint == KNOWN.wheel.fingerprint
    assert (base.n_layers, base.d_model, base.vocabulary) == (30, 576, 49152)
    assert base.ends == (base.tokenizer.convert_tokens_to_ids("<|im_end|>"),)


def test_each_digit_is_a_token_and_the_chat_template_is_there(base):
    assert base.tokenizer.tokenize("x  12 3.14") == "x ĠĠ 1 2 Ġ 3 . 1 4".split()
    chat = base.tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")


def _batch(base: Base, side: str) -> dict[str, torch.Tensor]:
    rows = [base.tokenizer(text).input_ids for text in TEXTS]
    width = max(map(len, rows))
    ids, mask = [], []
    for row in rows:
        pad, ones = [0] * (width - len(row)), [1] * len(row)
        ids.append(pad + row if side == "left" else row + pad)
        mask.append(pad + ones if side == "left" else ones + pad)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@torch.no_grad()
def _logits(base: Base, side: str, *, cached: bool) -> torch.Tensor:
    """Of the texts, read at once; or of four tokens that are generated behind them."""
    inputs = _batch(base, side)
    if cached:
        settings = {"output_logits": True, "return_dict_in_generate": True, "pad_token_id": 0}
        n = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
        model: Any = base.model
        return torch.stack(model.generate(**inputs, **n, **settings).logits)
    places = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)  # as `generate` counts them
    return base.model(**inputs, position_ids=places, use_cache=False).logits


@pytest.mark.filterwarnings("ignore:A decoder-only architecture is being used")
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("cached", [False, True])
def test_with_its_gates_off_an_adapter_changes_no_bit(base, side, cached):
    adapter = make_adapter(base)
    bare = _logits(base, side, cached=cached)
    with attach(base, adapter, gates="off"):
        assert torch.equal(_logits(base, side, cached=cached), bare)
    with attach(base, adapter):
        assert not torch.equal(_logits(base, side, cached=cached), bare)
