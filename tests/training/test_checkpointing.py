"""Blocks that are recomputed in the backward pass: the same step from less memory."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from csreft_core.attachment.attach import attach
from csreft_core.config import RouterConfig
from tests.families import ALL_FAMILIES, build
from tests.tiny import tiny_base
from tests.training.steps import adapter_for, count_runs, differs, stepped, training

# Sums are the same sums; some kernels choose another order when they run again.
SAME = 1e-6


class CheckpointedWithHooks(nn.Module):
    """Recomputes a block together with the hooks on it, as older versions of transformers do."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.block, name)

    def forward(self, *args, **kwargs):
        return checkpoint(self.block, *args, use_reentrant=False, **kwargs)


@pytest.fixture
def step(tmp_path):
    """One step on a base, with settings of `train` and of the adapter."""

    def call(base, router=None, layers=(0, 1), dropout=0.0, positions="f1+l2", **train):
        train = {"keep_states": False, **train}
        adapter = adapter_for(base, router, layers=layers, dropout=dropout, positions=positions)
        with attach(base) as attachment:
            return stepped(training(attachment, adapter, tmp_path, **train))

    return call


@ALL_FAMILIES
def test_the_step_is_the_same_and_stores_less(step, family):
    base = tiny_base(build(family))
    modes = [module.training for module in base.model.modules()]
    loss, gradients, stored = step(base, dropout=0.3)
    runs = count_runs([next(block.children()) for block in base.blocks])
    found, recomputed, less = step(base, dropout=0.3, checkpointing=True)
    assert runs == [1, 2, 2]  # the first block is edited at its end: no gradient passes it
    assert found == loss
    assert differs(recomputed, gradients) <= SAME
    assert less < 0.6 * stored
    assert [module.training for module in base.model.modules()] == modes
    assert not any("forward" in block.__dict__ for block in base.blocks)
    step(base)
    assert runs == [2, 3, 3]  # and the next step stores again


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox", "gemma3"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_recomputed_hooks_see_the_same_gates_and_positions(step, family, checkpointing):
    base = tiny_base(build(family))
    loss, gradients, _ = step(base, layers=(0, 1, 2))
    for layer, block in enumerate(base.blocks):
        base.blocks[layer] = CheckpointedWithHooks(block)
    runs = count_runs([block.block for block in base.blocks])
    # In autograd's thread, where the context of the call is empty.
    found, recomputed, _ = step(base, layers=(0, 1, 2), checkpointing=checkpointing)
    assert runs[1:] == [2, 2] if not checkpointing else min(runs[1:]) >= 2
    assert found == loss
    assert differs(recomputed, gradients) <= SAME


@pytest.mark.parametrize(
    "train",
    [
        {"keep_states": True},
        {"accumulate": 3},
        {"keep_states": True, "accumulate": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize("router", [RouterConfig(supervision=1.0), RouterConfig(layer=0)])
@pytest.mark.parametrize("positions", ["f1+l2", "l1"])
def test_with_kept_states_and_micro_batches(step, router, positions, train):
    base = tiny_base(build("llama"))
    settings = {"layers": (1, 2), "positions": positions, **train}
    loss, gradients, stored = step(base, router, **settings)
    found, recomputed, less = step(base, router, checkpointing=True, **settings)
    assert found == loss
    assert differs(recomputed, gradients) <= SAME
    assert less < stored


def test_blocks_below_the_first_edit_store_nothing(step):
    base = tiny_base(build("llama"))
    top, middle = (step(base, layers=(layer,))[2] for layer in (2, 1))
    assert top < middle - 10_000
    # The block's input, 10 rows * 10 tokens * 32 floats, is all that it may store.
    assert abs(step(base, layers=(2,), checkpointing=True)[2] - top) == 0
    assert step(base, layers=(1,), checkpointing=True)[2] <= top + 2 * 10 * 10 * 32 * 4


def test_the_switch_of_transformers_needs_training_mode_which_drops_out(step):
    """Why the blocks are not put into training mode, as that switch asks for."""
    base = tiny_base(build("opt"))
    assert base.blocks[1].dropout == 0.1  # not an `nn.Dropout`: the block drops out by itself
    loss = step(base)[0]
    base.model.activation_checkpointing_enable({"use_reentrant": False})
    runs = count_runs([next(block.children()) for block in base.blocks])
    assert step(base)[0] == loss
    assert runs == [1, 1, 1]  # a base in evaluation mode is never recomputed that way
    for block in base.blocks:
        block.training = True
    assert step(base)[0] != loss
    assert runs == [3, 3, 3]  # and even blocks below the first edit: the embedding gets a gradient


def test_an_error_in_the_step_leaves_the_base_as_it_was(step):
    base = tiny_base(build("llama"))

    def fail(*_):
        raise RuntimeError("out of memory")

    handle = base.blocks[2].mlp.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        step(base, checkpointing=True)
    assert not any("forward" in block.__dict__ for block in base.blocks)
    assert not any(block._forward_hooks for block in base.blocks)
    handle.remove()
    with torch.no_grad():
        base.model(torch.tensor([[5, 6]]))
