"""Wrapping a module's `forward` on the instance, and undoing it in any order."""

import copy
import inspect
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import nn

from csreft_core.attachment.wrapped_forwards import Wrapper, exchange_forwards, recompute_blocks
from csreft_core.errors import ConfigError

pytestmark = pytest.mark.fast


def adding(number):
    return lambda inner, args, kwargs: inner(*args, **kwargs) + number


def test_a_wrapped_module_does_more_and_a_restored_one_is_as_before():
    module = nn.Identity()
    wrapped = Wrapper(module, adding(1))
    assert module(torch.zeros(())) == 1
    assert inspect.signature(module.forward) == inspect.signature(nn.Identity().forward)
    wrapped.restore()
    wrapped.restore()
    assert module(torch.zeros(())) == 0
    assert "forward" not in vars(module)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_several_may_be_taken_off_in_any_order(order):
    module, numbers = nn.Identity(), [1, 10, 100]
    wrapped = [Wrapper(module, adding(number)) for number in numbers]
    assert module(torch.zeros(())) == 111
    left = 111
    for i in order:
        wrapped[i].restore()
        left -= numbers[i]
        assert module(torch.zeros(())) == left
    assert "forward" not in vars(module)


def test_a_forward_that_was_there_before_comes_back():
    module = nn.Identity()
    module.__dict__["forward"] = own = lambda x: x + 5
    wrapped = Wrapper(module, adding(1))
    assert module(torch.zeros(())) == 6
    wrapped.restore()
    assert module.forward is own


def test_a_module_compiled_before_is_wrapped_all_the_same():
    """torch.compile looks whether the module still has the `forward` that it had."""
    module, x = nn.Linear(2, 2), torch.ones(1, 2)
    expected, compiled = module(x), torch.compile(module, backend="eager")
    assert torch.equal(compiled(x), expected)
    wrapped = Wrapper(module, adding(1))
    assert torch.equal(compiled(x), expected + 1)
    wrapped.restore()
    assert torch.equal(compiled(x), expected)


def test_what_is_left_of_it_in_a_copy_is_that_of_the_copy():
    module = nn.Linear(2, 2)
    wrapped = Wrapper(module, adding(1))
    left = module.forward
    with pytest.raises(ConfigError, match="would go on running the original"):
        copy.deepcopy(module)
    module.__dict__["forward"] = lambda x: left(x)  # somebody else
    module.__dict__["_old_forward"] = left
    wrapped.restore()
    other: Any = copy.deepcopy(module)
    with torch.no_grad():
        other.weight.zero_()
        other.bias.zero_()
    assert not other._old_forward(torch.ones(1, 2)).any()
    assert module(torch.ones(1, 2)).any()


def test_hooks_of_others_run_around_it():
    module, seen = nn.Identity(), []
    module.register_forward_hook(lambda _m, _a, output: seen.append(output.item()))
    wrapped = Wrapper(module, adding(1))
    module(torch.zeros(()))
    wrapped.restore()
    module(torch.zeros(()))
    assert seen == [1, 0]


def test_a_replaced_forward_stands_inside_and_ends_with_an_error():
    blocks = [Wrapper(nn.Identity(), adding(1)) for _ in range(2)]
    modules = [wrapped._module for wrapped in blocks]
    with exchange_forwards({blocks[1]: lambda x: x * 0 + 7}):
        assert [m(torch.ones(())).item() for m in modules] == [2, 8]
    assert [m(torch.ones(())).item() for m in modules] == [2, 2]
    with pytest.raises(RuntimeError), exchange_forwards({blocks[0]: torch.linalg.cholesky}):
        modules[0](torch.ones(()))
    assert [m(torch.ones(())).item() for m in modules] == [2, 2]


def test_only_what_is_inside_is_recomputed():
    runs = {"inside": 0, "around": 0}

    class Squared(nn.Module):
        def forward(self, x):
            runs["inside"] += 1
            return x * x

    def around(inner, args, kwargs):
        runs["around"] += 1
        return inner(*args, **kwargs)

    blocks = [Wrapper(Squared(), around) for _ in range(2)]
    x = torch.tensor(3.0, requires_grad=True)
    with recompute_blocks(blocks[1:]):
        y = blocks[1]._module(blocks[0]._module(x))
    y.backward()
    assert x.grad == 4 * 27
    assert runs == {"inside": 3, "around": 2}
