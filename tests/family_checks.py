"""What must hold for a base of any family, each compared with a plain forward in torch.

The reference runs each row alone, without padding and without a cache, and edits with a forward
hook on a block.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from csreft_core.attachment.attach import attach
from csreft_core.attachment.passes import Request, request
from csreft_core.base.load import Base
from csreft_core.base.memory.need import need
from csreft_core.base.shapes import shape_of_description
from csreft_core.config import RouterConfig, preset, with_overrides
from csreft_core.reft.adapter import CSReFT
from csreft_core.training.loss import Window
from csreft_core.training.step import one_step
from tests.tiny import make_adapter, padded, tokens
from tests.training.steps import adapter_for, differs, stepped, training

SAME = 1e-4  # float32 sums in another order, relative to the largest logit
GATES = (0.7, 0.4)
LAYER = 2
N_NEW = 3
RULES = {
    "f1": lambda _n: [0],
    "f2+l2": lambda n: [*range(min(2, n // 2)), *range(n - min(2, -(-n // 2)), n)],
    "l1": lambda n: [n - 1],
    "all": None,
}

SAVINGS: tuple[tuple[str, dict[str, bool]], ...] = (
    ("f1+l2", {}),
    ("f1+l2", {"keep_states": True}),
    ("f1+l2", {"checkpointing": True}),
    ("l1", {}),
    ("l1", {"keep_states": True}),
)
"""Positions and what saves work there."""


class Different(Exception):
    """A number is not what the reference gives."""


def close(found: Tensor, right: Tensor, what: str) -> None:
    scale = right.abs().max()
    gap = (found - right).abs().max() / scale
    if not gap < SAME:
        raise Different(f"{what}: off by {gap:.1e} of the largest value")


def same(found: Tensor, right: Tensor, what: str) -> None:
    if not torch.equal(found, right):
        raise Different(f"{what}: off by {(found - right).abs().max():.1e}")


@contextmanager
def plain_edit(base: Base, adapter: CSReFT, rule: str, n: int) -> Iterator[None]:
    """Edit the first row's prompt of n tokens, by a hook of torch's own."""
    subspaces = adapter.at(LAYER)
    R, W, b = subspaces.basis()[0], subspaces.W[0], subspaces.b[0]

    def hook(_block: Any, _args: Any, output: Any) -> Any:
        h = output if isinstance(output, Tensor) else output[0]
        new = h.clone()
        where = RULES[rule]
        for t in range(h.shape[1]) if where is None else where(n):
            for k, gate in enumerate(GATES):
                new[0, t] += gate * R[k].T @ (W[k] @ h[0, t] + b[k] - R[k] @ h[0, t])
        return new if isinstance(output, Tensor) else type(output)([new, *output[1:]])

    handle = base.blocks[LAYER].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def check_forward(base: Base) -> None:
    """Closed gates change no bit; edits are the reference's, padded or not."""
    rows = tokens(7, 4)
    alone = [base.model(input_ids=row[None], use_cache=False).logits[0] for row in rows]
    left = padded(rows)
    for rule in RULES:
        adapter = make_adapter(base, layers=(LAYER,), positions=rule)
        if rule == "f1":
            with attach(base, adapter, (0.0, 0.0)):
                for row, right in zip(rows, alone, strict=True):
                    found = base.model(input_ids=row[None], use_cache=False).logits[0]
                    same(found, right, "closed gates")
                found = base.model(**left, use_cache=False).logits
            for row, one, right in zip(rows, found, alone, strict=True):
                close(one[-len(row) :], right, "closed gates, left padding")
        with attach(base, adapter, GATES):
            found = base.model(**left, use_cache=False).logits
        for row, one, unedited in zip(rows, found, alone, strict=True):
            with plain_edit(base, adapter, rule, len(row)):
                right = base.model(input_ids=row[None], use_cache=False).logits[0]
            close(one[-len(row) :], right, f"{rule}, left padding")
            if torch.equal(right, unedited):
                raise Different(f"{rule}: the edit changes nothing")


@torch.no_grad()
def check_generation(base: Base) -> None:
    """Cached answers, to one prompt and to two padded ones, have the logits of full forwards."""
    alone, two = tokens(5), tokens(6, 3)
    for rule, rows in [("f1", alone), ("all", alone), *((rule, two) for rule in RULES)]:
        adapter = make_adapter(base, layers=(LAYER,), positions=rule)
        with attach(base, adapter, GATES):
            model: Any = base.model
            out = model.generate(
                **padded(rows),
                do_sample=False,
                max_new_tokens=N_NEW,
                min_new_tokens=N_NEW,
                pad_token_id=0,
                output_logits=True,
                return_dict_in_generate=True,
            )
        found = torch.stack(out.logits, 1)
        for row, one, answer in zip(rows, found, out.sequences, strict=True):
            whole = torch.cat([row, answer[-N_NEW:]])[None, :-1]
            with plain_edit(base, adapter, rule, len(row)):
                right = base.model(input_ids=whole, use_cache=False).logits[0]
            close(one, right[-N_NEW:], f"{rule}, answers to {len(rows)} prompts")


@torch.no_grad()
def check_states(base: Base) -> None:
    """An edit at a layer changes the states of that layer and later ones, and no others.

    Gates are the same bits where the blocks above the router do not run.
    """
    row, layers = tokens(6)[0][None], tuple(range(base.n_layers))
    adapter = make_adapter(base, layers=(LAYER,), positions="all")
    with attach(base) as attachment:
        _, plain = attachment.forward(Request(None, capture=layers), input_ids=row, use_cache=False)
        asked = request(adapter, GATES, capture=layers)
        _, edited = attachment.forward(asked, input_ids=row, use_cache=False)
    for layer in layers:
        if tuple(plain.states[layer][1].shape) != (1, 6, base.d_model):
            raise Different(f"states of layer {layer} have shape {plain.states[layer][1].shape}")
        if torch.equal(plain.states[layer][1], edited.states[layer][1]) != (layer < LAYER):
            raise Different(f"an edit at layer {LAYER} and the states of layer {layer}")
    for router in (RouterConfig(), RouterConfig(layer=1)):
        learned = request(make_adapter(base, layers=(LAYER,), router=router))
        whole = gates_of(base, learned)
        alone = gates_of(base, learned, last_block=router.layer)
        same(alone, whole, f"gates of a router at layer {router.layer}, read alone")


def gates_of(base: Base, asked: Request, **inputs: Any) -> Tensor:
    with attach(base) as attachment:
        _, this = attachment.forward(asked, **padded(tokens(6, 3)), use_cache=False, **inputs)
    return this.prompt_gates()


def check_training(base: Base) -> None:
    """Four steps are finite and touch the adapter alone; what saves work changes no gradient."""
    weights = {name: value.clone() for name, value in base.model.state_dict().items()}
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for positions, settings in SAVINGS:
            adapter = adapter_for(base, positions=positions)
            before = {name: value.clone() for name, value in adapter.named_parameters()}
            with attach(base) as attachment:
                settings = {"keep_states": False, **settings}
                state = training(attachment, adapter, Path(folder), lr=1e-3, **settings)
                found.append(stepped(state)[1])
                for _ in range(0 if len(found) > 1 else 3):
                    one_step(state, Window())
            for name, value in adapter.named_parameters():
                if not value.isfinite().all():
                    raise Different(f"training: {name} is not finite")
            if all(torch.equal(before[n], p) for n, p in adapter.named_parameters()):
                raise Different("training changes nothing")
    for (positions, settings), gradients in zip(SAVINGS, found, strict=True):
        plain = found[SAVINGS.index((positions, {}))]
        if not (gap := differs(gradients, plain)) < SAME:
            raise Different(f"training at {positions}, {settings}: gradients off by {gap:.1e}")
    for name, value in base.model.state_dict().items():
        same(value, weights[name], f"training and the base's {name}")


def check_memory(base: Base, about: PreTrainedConfig) -> None:
    """The weights are counted exactly, and a training's need can be told, from the config alone."""
    shape = shape_of_description(about)
    if shape.n_parameters != base.n_parameters:
        raise Different(f"memory: {shape.n_parameters} weights, there are {base.n_parameters}")
    config = with_overrides(preset("recommended"), [f"adapter.layers=[{LAYER}]"])
    if not need(shape, config, batch=4, length=32, answer=8).activations > 0:
        raise Different("memory: a training step keeps nothing")
