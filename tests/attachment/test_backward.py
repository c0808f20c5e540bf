"""Gradients through the hooks: what the task loss reaches, and gradient checkpointing."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from csreft_core.attachment.attach import attach
from csreft_core.config import RouterConfig
from tests.tiny import make_adapter, padded, tiny_base, tokens


@pytest.fixture
def base(tiny_llama):
    return tiny_base(tiny_llama)


# --- training --------------------------------------------------------------------------------


def task_loss(base, inputs) -> torch.Tensor:
    out = base.model(**inputs).logits
    return F.cross_entropy(out[:, :-1].flatten(0, 1), inputs["input_ids"][:, 1:].flatten())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("form", "constraint"),
    [
        ("loreft", "joint"),
        ("loreft", "sequential"),
        ("loreft", "fixed"),
        ("direft", "within"),
        ("noreft", "none"),
        ("consreft", "joint"),
        ("lobireft", "penalty"),
    ],
)
def test_task_loss_reaches_everything_after_the_first_step(base, form, constraint, tied):
    init = "random" if form == "consreft" else "identity"
    adapter = make_adapter(
        base,
        k=3,
        layers=(0, 1),
        form=form,
        constraint=constraint,
        positions="f2+l2",
        tied=tied,
        init=init,
        moved=0.0,
    )
    optimizer = torch.optim.SGD([p for p in adapter.parameters() if p.requires_grad], lr=1.0)
    inputs = padded(tokens(6, 6, 6))
    with attach(base, adapter.train()):
        for _ in range(2):
            optimizer.zero_grad()
            task_loss(base, inputs).backward()
            optimizer.step()
    for name, parameter in adapter.named_parameters():
        if parameter.requires_grad:
            # Each subspace of each group on its own, not only some part of the stack.
            parts = parameter.grad.flatten(0, 1) if "subspaces" in name else parameter.grad[None]
            assert all(part.abs().max() > 0 for part in parts), name


@pytest.mark.parametrize("form", ["loreft", "noreft"])
def test_router_is_reached_from_the_second_step_on(base, form):
    constraint = "none" if form == "noreft" else "joint"
    settings = {"form": form, "constraint": constraint, "positions": "all_prompt"}
    adapter = make_adapter(base, k=3, moved=0.0, **settings).train()
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
    inputs = padded(tokens(6, 6, 6))
    with attach(base, adapter):
        task_loss(base, inputs).backward()
        assert all(p.grad.abs().max() == 0 for p in adapter.router.parameters())
        assert adapter.at(1).W.grad.abs().max() > 0
        optimizer.step()
        optimizer.zero_grad()
        task_loss(base, inputs).backward()
    assert all(p.grad.abs().max() > 0 for p in adapter.router.parameters())


class _Checkpointed(nn.Module):
    """Recomputes a block with its hooks, as Hub code and older models do."""

    def __init__(self, block, use_reentrant):
        super().__init__()
        self.block, self.use_reentrant = block, use_reentrant
        self.attention_type = getattr(block, "attention_type", None)

    def forward(self, hidden, **kwargs):
        if not self.training:
            return self.block(hidden, **kwargs)
        return checkpoint(self.block, hidden, use_reentrant=self.use_reentrant, **kwargs)


def checkpoint_as_transformers(base, use_reentrant):
    kwargs = {"use_reentrant": use_reentrant}
    base.model.activation_checkpointing_enable(activation_checkpointing_kwargs=kwargs)


def checkpoint_with_hooks(base, use_reentrant):
    base.model.enable_input_require_grads()
    wrapped = [_Checkpointed(block, use_reentrant) for block in base.blocks]
    base.model.model.layers = nn.ModuleList(wrapped)


# A router inside a block that is recomputed with its hooks is refused by torch itself.
@pytest.mark.parametrize(
    ("enable", "use_reentrant", "dropout", "layer"),
    [
        (checkpoint_as_transformers, False, 0.3, -1),
        (checkpoint_as_transformers, False, 0.0, 0),
        (checkpoint_as_transformers, True, 0.3, -1),
        (checkpoint_as_transformers, True, 0.0, 0),
        (checkpoint_with_hooks, False, 0.0, -1),
        (checkpoint_with_hooks, False, 0.3, -1),
    ],
)
def test_gradient_checkpointing_gives_the_same_gradients(
    base, enable, use_reentrant, dropout, layer
):
    settings = {"layers": (0, 1), "positions": "f2+l2", "dropout": dropout}
    adapter = make_adapter(base, router=RouterConfig(layer=layer), **settings).train()
    inputs, runs, gradients = padded(tokens(6, 6)), [0], []
    base.blocks[1].mlp.register_forward_pre_hook(lambda *_: runs.__setitem__(-1, runs[-1] + 1))
    with attach(base, adapter):
        for checkpointing in (False, True):
            if checkpointing:
                enable(base, use_reentrant)
                runs.append(0)
            base.model.train()
            adapter.zero_grad()
            task_loss(base, inputs).backward()
            gradients.append([p.grad.clone() for p in adapter.parameters()])
    assert runs == [1, 2]
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, atol=1e-7, rtol=1e-5)
        assert one.abs().max() > 0


def test_backward_after_a_second_forward_uses_the_first_ones_gates(base):
    adapter = make_adapter(base).train()
    one, two = padded(tokens(6)), padded(tokens(5, seed=4))
    with attach(base, adapter):
        task_loss(base, one).backward()
        expected = adapter.at(1).W.grad.clone()
        adapter.zero_grad()
        loss = task_loss(base, one)
        task_loss(base, two)
        loss.backward()
    torch.testing.assert_close(adapter.at(1).W.grad, expected)
