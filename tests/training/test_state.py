"""What weight decay may touch, and at which rate each part learns."""

import pytest
import torch
from transformers import get_linear_schedule_with_warmup

from csreft_core.config import RouterConfig, TrainConfig, preset, with_overrides
from csreft_core.training.state import adamw, rates
from tests.tiny import make_adapter

pytestmark = pytest.mark.fast

CONFIG = with_overrides(
    preset("recommended"), ["train.weight_decay=0.1", "train.lr=0.02", "train.router_lr=0.005"]
)
CONSTRAINTS = pytest.mark.parametrize("constraint", ["none", "within", "joint", "sequential"])


@CONSTRAINTS
def test_weight_decay_touches_w_b_and_router_but_never_the_basis(constraint):
    adapter = make_adapter(constraint=constraint, layers=(0, 1))
    before = {name: p.detach().clone() for name, p in adapter.named_parameters()}
    optimizer = adamw(adapter, CONFIG)
    for parameter in adapter.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in adapter.named_parameters():
        rate = 0.005 if name.startswith("router.") else 0.02
        kept = 1.0 if name.endswith(".raw") else 1 - rate * 0.1
        torch.testing.assert_close(parameter.detach(), kept * before[name], atol=0, rtol=1e-6)
        assert torch.equal(parameter.detach(), before[name]) == name.endswith(".raw"), name


@pytest.mark.parametrize("router", [RouterConfig(), RouterConfig(gates="oracle")])
@pytest.mark.parametrize("constraint", ["joint", "fixed"])
def test_every_trainable_parameter_is_in_one_group(constraint, router):
    adapter = make_adapter(constraint=constraint, router=router)
    grouped = [p for group in adamw(adapter, CONFIG).param_groups for p in group["params"]]
    trainable = [p for p in adapter.parameters() if p.requires_grad]
    assert sorted(map(id, grouped)) == sorted(map(id, trainable))
    assert any(p is adapter.at(1).raw for p in grouped) == (constraint != "fixed")


@pytest.mark.parametrize("steps", [1, 7, 250])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.33, 0.999])
def test_rates_rise_and_fall_as_those_of_transformers(steps, warmup):
    optimizer = adamw(make_adapter(), CONFIG)
    theirs = adamw(make_adapter(), CONFIG)
    ours = rates(optimizer, TrainConfig(steps=steps, warmup=warmup))
    expected = get_linear_schedule_with_warmup(theirs, round(warmup * steps), steps)
    for _ in range(steps):
        assert ours.get_last_lr() == expected.get_last_lr()
        optimizer.step()
        theirs.step()
        ours.step()
        expected.step()
    assert max(ours.get_last_lr()) == 0
