"""What is read of transformers: caches of all classes and names, masks, places; else an error."""

from contextlib import nullcontext

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, StaticCache

from csreft_core.base.library_calls import (
    Cached,
    cache_argument,
    named_inputs,
    prompts_of,
    read_call,
    refuse_several_texts,
)
from csreft_core.errors import ConfigError
from tests.families import build

pytestmark = [pytest.mark.fast, pytest.mark.libraries]

IDS = torch.tensor([[5, 6, 7], [8, 9, 10]])
ONES = torch.ones(2, 3, dtype=torch.long)


def keys(width: int) -> torch.Tensor:
    return torch.zeros(2, 1, width, 8)


def filled(width: int = 4, layers: int = 2) -> DynamicCache:
    cache = DynamicCache()
    for layer in range(layers):
        cache.update(keys(width), keys(width), layer)
    return cache


def sliding(width: int) -> DynamicCache:
    """A cache that keeps 3 tokens of each layer, and counts all that it has seen."""
    config = LlamaConfig(num_hidden_layers=2, num_attention_heads=1, hidden_size=8)
    config.layer_types, config.sliding_window = ["sliding_attention"] * 2, 4
    cache = DynamicCache(config=config)
    for layer in range(2):
        cache.update(keys(width), keys(width), layer)
    return cache


def behind_an_empty_layer() -> DynamicCache:
    """The first layer keeps its state elsewhere, as in models with two kinds of attention."""
    cache = filled(4)
    empty = DynamicCache()
    cache.layers[0] = (empty.update(keys(0), keys(0), 0), empty.layers[0])[1]
    return cache


def static(width: int) -> StaticCache:
    config = LlamaConfig(num_hidden_layers=1, num_attention_heads=1, hidden_size=8)
    cache = StaticCache(config=config, max_cache_len=16)
    cache.update(keys(width), keys(width), 0)
    return cache


@pytest.mark.parametrize("name", ["cache", "past_key_values", "cache_params"])
@pytest.mark.parametrize(
    ("make", "length"),
    [
        (DynamicCache, 0),
        (filled, 4),
        (lambda: sliding(9), 9),
        (behind_an_empty_layer, 4),
        (lambda: static(5), 5),
    ],
)
def test_a_cache_is_known_by_any_name_and_its_length_by_any_class(name, make, length):
    call = read_call({"input_ids": IDS, name: make()})
    assert call.past() == length
    counter = call.cached.counter()
    assert (0 if counter is None else int(counter())) == length


def test_without_a_cache_nothing_is_past():
    assert read_call({"input_ids": IDS, "past_key_values": None}).past() == 0


def test_states_without_a_length_are_known_to_hold_something():
    assert read_call({"input_ids": IDS, "state": [torch.zeros(2, 3)]}).past() is None


def test_an_unused_cache_beside_another_one_does_not_count():
    both = {"input_ids": IDS, "cache": DynamicCache(), "state": [torch.zeros(2)]}
    assert read_call(both).cached.name == "state"


class Strange:
    """Somebody's own cache."""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"memory": filled()}, "argument 'memory', which is not known as a key-value cache"),
        ({"past_key_values": ((keys(2), keys(2)),)}, "is a tuple, .* length cannot be read"),
        ({"cache": Strange()}, "is a Strange, a key-value cache whose length cannot be read"),
        ({"cache": filled(), "past_key_values": filled()}, "two key-value caches"),
        ({"attention_mask": torch.ones(2, 1, 3, 3)}, r"one value for each token .* \[2, 1, 3, 3\]"),
        ({"attention_mask": {"full_attention": ONES}}, "one value for each token .* dict"),
        ({"attention_mask": ONES[:1]}, r"one value for each token .* \[1, 3\]"),
        ({"attention_mask": torch.tensor([[1, 1, 2], [1, 2, 2]])}, "1 for a real token and 0"),
        ({"attention_mask": torch.tensor([[0.0, 0, -1e9]] * 2)}, "1 for a real token and 0"),
        ({"input_ids": None}, "needs input_ids"),
        ({"input_ids": torch.tensor([4, 5])}, "needs input_ids"),
    ],
)
def test_what_is_not_known_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        read_call({"input_ids": IDS, **given})


def test_a_mask_of_another_length_is_refused():
    call = read_call({"input_ids": IDS, "attention_mask": ONES})
    assert call.real(3).all()
    with pytest.raises(ConfigError, match="has 3 values a row, the call has 5 tokens"):
        call.real(5)


def several(places, mask=None, **more):
    given = {"position_ids": torch.tensor(places), "attention_mask": mask, **more}
    call = read_call({"input_ids": IDS, **given})
    refuse_several_texts(call, call.real(3))


@pytest.mark.parametrize(
    ("places", "mask", "refused"),
    [
        ([[0, 1, 2]], None, False),
        ([[2, 3, 4]], None, False),  # behind a prefix
        ([[0, 1, 0]], None, True),
        ([[0, 1, 2], [0, 0, 0]], None, True),  # three texts of one token
        ([[0, 2, 4]], None, True),  # transformers takes each for a text
        ([[0, 2, 4]], [[1, 1, 1]] * 2, False),
        ([[0, 1, 0]], [[1, 1, 1]] * 2, True),
        ([[1, 0, 1]], [[0, 1, 1]] * 2, False),  # padding on the left
        ([[0, 1, 0]], [[1, 1, 0]] * 2, False),  # and on the right
        ([[1, 0, 0]], [[1, 0, 1]] * 2, True),  # two texts around padding
        ([[[0, 1, 1]], [[0, 1, 1]], [[0, 1, 2]]], None, False),  # two tokens of an image
        ([[[0, 1, 0]]] * 3, None, True),
    ],
)
def test_rows_with_several_texts_are_seen_by_their_places(places, mask, refused):
    expected = (
        pytest.raises(ConfigError, match="rows with several texts") if refused else nullcontext()
    )
    with expected:
        several(places, None if mask is None else torch.tensor(mask))


def test_rows_with_several_texts_are_seen_by_what_collators_say():
    with pytest.raises(ConfigError, match="cu_seq_lens_q"):
        several([[0, 1, 2]], cu_seq_lens_q=torch.tensor([0, 2, 3]))


def test_arguments_are_named_as_the_model_names_them():
    model = build("llama")
    named = named_inputs(model, (IDS, ONES), {"use_cache": False})
    assert named == {"input_ids": IDS, "attention_mask": ONES, "use_cache": False}
    out = model(IDS, use_cache=True)
    assert model(IDS, **{cache_argument(model): out[1]}).logits.shape[1] == 3
    with pytest.raises(ConfigError, match="under a name that is known"):
        cache_argument(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["inputs", "input_ids", "inputs_embeds"])
def test_the_prompts_of_generate_are_found_by_any_name(name):
    model = build("llama")
    assert prompts_of(model, (), {name: IDS}).tokens is IDS
    assert prompts_of(model, (IDS,), {}).tokens is IDS
    assert prompts_of(model, (), {"bos_token_id": 1}).tokens is None
    assert not prompts_of(model, (IDS,), {}).custom
    assert prompts_of(model, (IDS,), {"custom_generate": print}).custom


def test_a_cache_that_is_filled_grows_under_its_counter():
    cache = filled(4)
    counter = Cached("cache", cache).counter()
    cache.update(keys(1), keys(1), 0)
    assert int(counter()) == 5
