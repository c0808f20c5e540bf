"""Attaching and detaching, other people's hooks, and threads."""

import copy
import io
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from transformers import (
    TextIteratorStreamer,
)

from csreft_core.attachment.attach import attach, request
from csreft_core.attachment.wrapped_forwards import Wrapper
from csreft_core.config import RouterConfig
from csreft_core.errors import ConfigError
from tests.families import (
    build,
    edited,
    generated,
    logits,
)
from tests.tiny import make_adapter, padded, tiny_base, tokens


@pytest.fixture
def base(tiny_llama):
    return tiny_base(tiny_llama)


# --- attach, detach --------------------------------------------------------------------------


def forwards_of(model) -> dict[str, object]:
    """What stands for `forward` on the modules themselves, over what their classes have."""
    found = {name: vars(module).get("forward") for name, module in model.named_modules()}
    return {name: forward for name, forward in found.items() if forward is not None}


def test_detach_restores_the_base(base):
    inputs, adapter = padded(tokens(6, 4)), make_adapter(base)
    forwards, attributes = forwards_of(base.model), set(vars(base.model))
    bare = logits(base, inputs)
    attachment = attach(base, adapter)
    assert forwards_of(base.model) != forwards
    assert not torch.equal(logits(base, inputs), bare)
    generated(base, inputs)
    attachment.detach()
    attachment.detach()
    assert forwards_of(base.model) == forwards
    assert set(vars(base.model)) == attributes
    assert torch.equal(logits(base, inputs), bare)


def test_a_detached_attachment_wraps_nothing_any_more(base):
    forwards = forwards_of(base.model)
    attachment = attach(base, make_adapter(base))
    attachment.detach()
    with pytest.raises(RuntimeError, match="was detached; attach again"):
        attachment.checkpointing(above=0)
    assert forwards_of(base.model) == forwards


def test_only_what_a_request_needs_is_wrapped(base):
    inputs, adapter = padded(tokens(6, 4)), make_adapter(base, layers=(1,))
    embedding, last = "model.embed_tokens", f"model.layers.{base.n_layers - 1}"
    before = set(forwards_of(base.model))
    with attach(base) as attachment:
        wrapped = lambda: set(forwards_of(base.model)) - before  # noqa: E731
        assert wrapped() == {""}
        attachment.forward(request(adapter), **inputs)
        assert wrapped() == {"", embedding, "model.layers.1"}
        attachment.forward(request(adapter, capture=(0,)), **inputs)
        assert wrapped() == {"", embedding, "model.layers.1", "model.layers.0"}
        attachment.logits(request(adapter), (torch.tensor([0]), torch.tensor([-1])), **inputs)
        parts = {f"{last}.self_attn", f"{last}.mlp", "lm_head"}
        assert wrapped() == {"", embedding, "model.layers.1", "model.layers.0", *parts}
    assert set(forwards_of(base.model)) == before


def test_detach_after_an_exception(base):
    forwards = forwards_of(base.model)
    with pytest.raises(ZeroDivisionError), attach(base, make_adapter(base)):
        raise ZeroDivisionError
    assert forwards_of(base.model) == forwards


def test_a_failed_forward_leaves_no_pass_behind(base):
    adapter, inputs = make_adapter(base), padded(tokens(6, 4))
    expected = edited(base, adapter, inputs)
    with torch.no_grad(), attach(base, adapter) as attachment:
        with pytest.raises(IndexError):
            base.model(torch.tensor([[500]]))
        with pytest.raises(IndexError):
            base.model.generate(torch.tensor([[500]]), max_new_tokens=2)
        assert attachment._pass.get(None) is None
        assert torch.equal(logits(base, inputs), expected)


def test_other_peoples_hooks_survive(base):
    seen = []
    handles = [
        base.blocks[1].register_forward_hook(lambda *_: seen.append("block")),
        base.model.register_forward_pre_hook(lambda *_: seen.append("model")),
    ]
    with attach(base, make_adapter(base)):
        generated(base, padded(tokens(5)), n=2)
        assert seen.count("block") == seen.count("model") == 2
    seen.clear()
    logits(base, padded(tokens(5)))
    assert seen == ["model", "block"]
    for handle in handles:
        handle.remove()


def test_two_attachments_to_different_bases(base):
    other = tiny_base(build("gpt2"))
    one, two = make_adapter(base), make_adapter(other)
    inputs = padded(tokens(6))
    expected = edited(base, one, inputs), edited(other, two, inputs)
    with attach(base, one), attach(other, two):
        assert torch.equal(logits(base, inputs), expected[0])
        assert torch.equal(logits(other, inputs), expected[1])


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "torch.save": lambda module: torch.save(module, io.BytesIO()),
    "DataParallel": lambda module: module._replicate_for_data_parallel(),
}


@pytest.mark.parametrize("way", COPIES)
def test_copies_of_an_attached_base_are_refused(base, way):
    """They would run the original, even after `detach`. A part of the base is no better."""
    adapter, inputs = make_adapter(base), padded(tokens(6, 4))
    with attach(base, adapter):
        expected = logits(base, inputs)
        deep = [base.model.model] if way in ("deepcopy", "pickle", "torch.save") else []
        for module in (base.model, base.blocks[1], *deep):
            with pytest.raises(ConfigError, match="would go on running the original"):
                COPIES[way](module)
        assert torch.equal(logits(base, inputs), expected)
    for module in (base.model, base.blocks[1]):
        COPIES[way](module)


def test_a_copy_made_outside_is_another_base(base):
    adapter, inputs = make_adapter(base), padded(tokens(6, 4))
    expected, bare = edited(base, adapter, inputs), logits(base, inputs)
    other = tiny_base(copy.deepcopy(base.model))
    with attach(base, adapter):
        assert torch.equal(logits(other, inputs), bare)
        assert torch.equal(edited(other, adapter, inputs), expected)


@pytest.mark.parametrize("order", ["theirs first", "ours first"])
def test_a_wrapper_of_others_may_go_first_or_last(base, order):
    """accelerate wraps `forward` on the instance, too; a copy made afterwards runs itself."""
    adapter, inputs = make_adapter(base), padded(tokens(6, 4))
    expected, bare = edited(base, adapter, inputs), logits(base, inputs)
    attachment = attach(base, adapter)
    logits(base, inputs)
    for module in (base.model, base.blocks[1]):
        add_hook_to_module(module, ModelHook())
    assert torch.equal(logits(base, inputs), expected)
    steps = [
        attachment.detach,
        *(partial(remove_hook_from_module, m) for m in (base.model, base.blocks[1])),
    ]
    for step in steps if order == "ours first" else reversed(steps):
        step()
        if step == attachment.detach:
            other = tiny_base(copy.deepcopy(base.model))
            with torch.no_grad():
                for parameter in other.model.parameters():
                    parameter.zero_()
            assert not logits(other, inputs).any()
    assert torch.equal(logits(base, inputs), bare)


def test_others_may_wrap_generate_and_train_on_the_instance(base):
    adapter, inputs = make_adapter(base), padded(tokens(6, 4))
    own = base.model.generate
    base.model.generate = lambda *args, **kwargs: own(*args, **kwargs)
    before = base.model.generate
    with attach(base, adapter):
        expected = generated(base, inputs).sequences
        ours = base.model.generate
        base.model.generate = lambda *args, **kwargs: ours(*args, **kwargs)
        theirs = base.model.generate
        assert torch.equal(generated(base, inputs).sequences, expected)
    assert base.model.generate is theirs
    bare = generated(base, inputs).sequences
    assert not torch.equal(bare, expected)
    base.model.generate = before
    assert torch.equal(generated(base, inputs).sequences, bare)


def test_a_base_takes_one_attachment(base):
    adapter, inputs = make_adapter(base), padded(tokens(6))
    expected = edited(base, adapter, inputs)
    attachment = attach(base, adapter)
    with pytest.raises(ConfigError, match="has an attachment already; detach"):
        attach(base, adapter)
    assert torch.equal(logits(base, inputs), expected)
    attachment.detach()
    with attach(base, adapter):
        attachment.detach()  # of the old one, again
        with pytest.raises(ConfigError, match="has an attachment already"):
            attach(base)
        assert torch.equal(logits(base, inputs), expected)


@pytest.mark.filterwarnings(
    "ignore:.torch.jit.trace.:DeprecationWarning",
    "ignore:.is_gradient_checkpointing.:FutureWarning",
)
def test_recording_an_attached_base_is_refused(base):
    """One prompt's gates would be those of all."""
    row, refused = tokens(6)[0][None], "cannot be exported or traced"
    with torch.no_grad(), attach(base, make_adapter(base)):
        with pytest.raises(ConfigError, match=refused):
            torch.export.export(base.model, (row,), {"use_cache": False})
        with pytest.raises(ConfigError, match=refused):
            torch.jit.trace(base.model, (row,))


def test_a_base_may_move_and_change_its_number_format(base):
    adapter, inputs = make_adapter(base), padded(tokens(6, 4))
    half = tiny_base(copy.deepcopy(base.model).to(torch.bfloat16))
    expected = edited(half, adapter, inputs)
    with attach(base, adapter):
        logits(base, inputs)
        base.model.to(torch.bfloat16)
        assert torch.equal(logits(base, inputs), expected)


def test_attaching_a_second_time_gives_the_same(base):
    adapter, inputs = make_adapter(base), padded(tokens(6))
    assert torch.equal(edited(base, adapter, inputs), edited(base, adapter, inputs))


def test_eval_and_train_of_the_model_reach_the_adapter(base):
    adapter = make_adapter(base, dropout=0.5)
    with attach(base, adapter):
        base.model.train()
        assert adapter.training
        assert adapter.at(1).training
        assert base.model.model.training
        base.model.eval()
        assert not adapter.at(1).training
    base.model.train()
    assert not adapter.training
    base.model.eval()


def test_embedding_may_be_called_on_its_own(base):
    with attach(base, make_adapter(base)):
        base.model.get_input_embeddings()(torch.tensor([[4, 5]]))


def test_learned_gates_without_a_router_are_an_error(base):
    adapter = make_adapter(base, router=RouterConfig(gates="oracle"))
    with attach(base, adapter), pytest.raises(ConfigError, match="has no router"):
        logits(base, padded(tokens(5)))


def test_learned_means_uniform_for_an_adapter_trained_so(base):
    adapter = make_adapter(base, router=RouterConfig(gates="uniform"))
    inputs = padded(tokens(5))
    uniform = edited(base, adapter, inputs, "uniform")
    assert torch.equal(edited(base, adapter, inputs), uniform)


# --- threads ---------------------------------------------------------------------------------


def in_thread(work):
    """Run it in a plain thread; give its result or raise its error here."""
    kept = {}

    def body():
        try:
            kept["result"] = work()
        except Exception as error:  # noqa: BLE001 - raised again below
            kept["error"] = error

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if "error" in kept:
        raise kept["error"]
    return kept["result"]


def test_a_thread_without_context_raises_instead_of_giving_the_base(base):
    adapter, inputs = make_adapter(base), padded(tokens(6))
    with attach(base) as attachment, attachment.calling(request(adapter)):
        expected = logits(base, inputs)
        with pytest.raises(RuntimeError, match="start threads through contextvars"):
            in_thread(lambda: logits(base, inputs))
        context = copy_context()
        assert torch.equal(in_thread(lambda: context.run(logits, base, inputs)), expected)


def test_threads_that_need_a_block_first_wrap_it_once(base, monkeypatch):
    adapter, inputs = make_adapter(base), padded(tokens(6, 4))
    expected = edited(base, adapter, inputs)

    class Slow(Wrapper):
        def __init__(self, *args):
            time.sleep(0.05)
            super().__init__(*args)

    monkeypatch.setattr("csreft_core.attachment.wrapped_forwards.Wrapper", Slow)
    with attach(base, adapter), ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: logits(base, inputs), range(4)))
    assert all(torch.equal(one, expected) for one in found)


def test_streaming_in_a_plain_thread(base):
    adapter, inputs = make_adapter(base), padded(tokens(6))
    with attach(base, adapter):
        whole = generated(base, inputs, n=5).sequences[0, 6:]
        streamer = TextIteratorStreamer(base.tokenizer, skip_prompt=True)
        more = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
        thread = threading.Thread(
            target=base.model.generate, kwargs={**inputs, **more, "streamer": streamer}
        )
        thread.start()
        text = "".join(streamer)
        thread.join()
    assert text == base.tokenizer.decode(whole)
    assert text != base.tokenizer.decode(generated(base, inputs, n=5).sequences[0, 6:])
