"""bf16 autocast: the base multiplies in bfloat16, the adapter and its loss stay in float32."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from csreft_core.attachment.attach import attach, request
from csreft_core.base.load import Base, load_base
from csreft_core.config import BaseConfig, RouterConfig
from csreft_core.reft.adapter import load_adapter
from csreft_core.runs.all_runs import create_run
from csreft_core.skills.skill_set import read_skills
from csreft_core.training.loop import train
from tests import tiny_runs
from tests.families import build
from tests.tiny import make_adapter, padded, tiny_base, tokens
from tests.training.steps import adapter_for, differs, quick, stepped, training

PRODUCTS = ("mm", "addmm", "bmm")


class Formats(TorchDispatchMode):
    """Number formats of the matrix products inside the `with`."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        if function.overloadpacket.__name__ in PRODUCTS:
            self.seen.add(args[-1].dtype)
        return function(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Base:
    folder = tiny_runs.save_base(tmp_path_factory.mktemp("base") / "tiny")
    return load_base(BaseConfig(path=str(folder)))


@pytest.fixture(scope="module")
def skill_set(tmp_path_factory):
    path = tmp_path_factory.mktemp("skills") / "two.jsonl"
    return read_skills(str(tiny_runs.write_rows(path, tiny_runs.rows())))


def trained(path, base, skill_set, *assignments, **changes):
    run = create_run(path, quick(base, *assignments, **changes), skill_set)
    return run, list(train(run, base))


def evals(records):
    return [r["mean"]["loss"] for r in records if r["kind"] == "eval"]


def test_it_trains_and_only_the_base_computes_in_bf16(tmp_path, base, skill_set):
    before = {name: p.clone() for name, p in base.model.named_parameters()}
    run, records = trained(tmp_path / "run", base, skill_set, "train.autocast=bf16")
    plain = trained(tmp_path / "plain", base, skill_set)[1]
    losses, expected = evals(records), evals(plain)
    assert losses[-1] < losses[0] - 1
    # The start is the base alone: only the number format differs, and it does in evaluations too.
    assert 0 < abs(losses[0] - expected[0]) < 0.05 * expected[0]
    assert losses[-1] == pytest.approx(expected[-1], rel=0.1)
    adapter = load_adapter(run.adapter_path)
    assert {p.dtype for p in adapter.parameters()} == {torch.float32}
    assert all(torch.equal(p, before[name]) for name, p in base.model.named_parameters())
    assert not torch.is_autocast_enabled("cpu")
    assert records[0]["notes"] == []


def test_the_adapter_computes_in_float32_inside_of_autocast():
    base = tiny_base(build("llama"))
    adapter = make_adapter(base, layers=(1,), router=RouterConfig(layer=0))
    inputs, seen = padded(tokens(5, 7)), {}
    for module in (adapter.router, adapter.at(1), base.blocks[0].mlp, base.blocks[2].mlp):
        seen[module] = Formats()
        module.register_forward_pre_hook(lambda m, *_: seen[m].__enter__() and None)
        module.register_forward_hook(lambda m, *_: seen[m].__exit__(None, None, None))
    with attach(base, autocast=torch.bfloat16) as attachment, torch.no_grad():
        attachment.forward(request(adapter), **inputs)
    formats = [mode.seen for mode in seen.values()]
    assert formats == [{torch.float32}, {torch.float32}, {torch.bfloat16}, {torch.bfloat16}]


@pytest.mark.parametrize("positions", ["f1+l2", "l1"])
@pytest.mark.parametrize(
    "more", [{"keep_states": True}, {"accumulate": 3}, {"checkpointing": True}]
)
def test_the_other_savings_change_nothing_under_autocast(tmp_path, more, positions):
    base = tiny_base(build("llama"))
    results = []
    for settings in ({"keep_states": False}, {"keep_states": False, **more}):
        adapter = adapter_for(base, layers=(1,), positions=positions)
        with attach(base, autocast=torch.bfloat16) as attachment:
            state = training(attachment, adapter, tmp_path, autocast="bf16", **settings)
            results.append(stepped(state))
    (loss, gradients, _), (found, others, _) = results
    assert found == pytest.approx(loss, abs=1e-6)
    # Each product is rounded to 8 bits, so another order of the same sum may round the other way.
    assert differs(others, gradients) <= (0 if "checkpointing" in more else 1e-2)


def test_kept_states_stay_in_the_format_of_the_base(tmp_path):
    for dtype in (torch.float32, torch.bfloat16):
        base = tiny_base(build("llama", dtype))
        adapter = adapter_for(base, layers=(1,), positions="l1")
        with attach(base, autocast=torch.bfloat16) as attachment:
            start = training(attachment, adapter, tmp_path, keep_states=True).start([0, 1])
            # Under autocast blocks add their bfloat16 products to a stream in the base's format.
            assert start.states[1].dtype == dtype
            keys, values = start.key_values[2]
            assert values.dtype == torch.bfloat16
            assert keys.dtype == dtype  # turned by their places, in that format


def test_a_base_in_bf16_has_nothing_left_to_cast(tmp_path, skill_set, base):
    half = load_base(BaseConfig(path=base.id, precision="bf16"))
    changes = {"steps": 4, "eval_every": 4}
    one, records = trained(tmp_path / "a", half, skill_set, "train.autocast=bf16", **changes)
    two, others = trained(tmp_path / "b", half, skill_set, **changes)
    assert "computes in bfloat16 already" in records[0]["notes"][0]
    assert others[0]["notes"] == []
    assert one.adapter_path.read_bytes() == two.adapter_path.read_bytes()


def test_autocast_reaches_the_products_of_a_4_bit_base(tmp_path, base, skill_set):
    bnb = pytest.importorskip("bitsandbytes")
    small = load_base(BaseConfig(path=base.id, precision="nf4"))
    layers = [m for m in small.model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert small.model.dtype == torch.float32  # the format that it computes in
    run, records = trained(
        tmp_path / "run",
        small,
        skill_set,
        "train.autocast=bf16",
        "train.checkpointing=true",
        "train.accumulate=2",
        steps=15,
    )
    assert evals(records)[-1] < evals(records)[0] - 1
    assert all(layer.training for layer in layers)
    assert not any(m.training for m in small.model.modules() if isinstance(m, nn.Embedding))
    assert load_adapter(run.adapter_path).at(1).raw.dtype == torch.float32
    modes = Formats()
    with attach(small, autocast=torch.bfloat16) as attachment, torch.no_grad(), modes:
        attachment.forward(request(load_adapter(run.adapter_path)), **padded(tokens(4)))
    assert torch.bfloat16 in modes.seen
