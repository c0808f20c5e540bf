"""Kept states: the same loss and gradient as the plain step, on disk too, after a resume too."""

import numpy as np
import pytest
import torch

from csreft_core.attachment.attach import attach
from csreft_core.attachment.passes import Request
from csreft_core.config import RouterConfig, preset, with_overrides
from csreft_core.inference.scoring import Encoded
from csreft_core.skills.encoding import Example
from csreft_core.skills.skill_set import Row
from csreft_core.training.kept_states import KeptStates, inexact_because, kept_layers
from csreft_core.training.loss import Window, batch_loss
from tests.families import ALL_FAMILIES, build
from tests.tiny import make_adapter, tiny_base, tokens

N = 11
ORDER = np.random.default_rng(0).permutation(N)
FIRST = ORDER[:4].tolist()
CONFIG = with_overrides(preset("recommended"), ["adapter.constraint=within"])


@pytest.fixture
def base(tiny_llama):
    return tiny_base(tiny_llama)


def data() -> Encoded:
    lengths = [3 + i % 5 for i in range(N)]
    prompts = [tuple(row.tolist()) for row in tokens(*lengths)]
    examples = tuple(Example(p, (5 + i, 7, 2)[: 1 + i % 3]) for i, p in enumerate(prompts))
    rows = tuple(Row((f"skill {i % 2}",), "", "", "train") for i in range(N))
    return Encoded(rows, examples)


def kept(attachment, adapter, folder, budget=2**30, **more) -> KeptStates:
    return KeptStates(
        attachment,
        data(),
        layers=kept_layers(adapter.spec),
        order=ORDER,
        batch_size=4,
        budget_bytes=budget,
        folder=folder / "states",
        **more,
    )


def loss_and_gradients(attachment, adapter, taken, states=None):
    encoded = data()
    adapter.zero_grad(set_to_none=True)
    examples = [encoded.examples[i] for i in taken]
    loss = batch_loss(
        attachment,
        adapter,
        CONFIG,
        [encoded.rows[i] for i in taken],
        examples,
        n_tokens=sum(len(e.answer) for e in examples),
        n_rows=len(taken),
        window=Window(),
        states=states,
    )
    loss.backward()
    return loss.item(), {n: p.grad for n, p in adapter.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "router", [RouterConfig(supervision=1.0), RouterConfig(layer=0, supervision=1.0)]
)
@ALL_FAMILIES
def test_loss_and_gradient_are_those_of_the_plain_step(family, router, tmp_path):
    base = tiny_base(build(family))
    adapter = make_adapter(base, layers=(1, 2), positions="f1+l2", router=router).train()
    with attach(base) as attachment:
        states = kept(attachment, adapter, tmp_path)
        for taken in ([0, 5, 7], [10, 1], FIRST):
            plain, expected = loss_and_gradients(attachment, adapter, taken)
            found, gradients = loss_and_gradients(attachment, adapter, taken, states.of(taken))
            assert found == pytest.approx(plain, abs=1e-6, rel=1e-6)
            assert gradients.keys() == expected.keys()
            assert any(name.startswith("router.") for name in gradients)
            largest = max(g.abs().max() for g in expected.values())
            for name, gradient in gradients.items():
                assert (gradient - expected[name]).abs().max() <= 1e-6 + 2e-6 * largest, name
    assert not any("forward" in block.__dict__ for block in base.blocks)


def test_lower_blocks_do_not_run_and_their_states_are_computed_once(base, tmp_path):
    adapter, calls = make_adapter(base, layers=(2,)).train(), []
    for layer, block in enumerate(base.blocks):
        block.mlp.register_forward_hook(lambda *_, layer=layer: calls.append(layer))
    with attach(base) as attachment:
        states = kept(attachment, adapter, tmp_path)
        loss_and_gradients(attachment, adapter, FIRST, states.of(FIRST))
        assert calls == [0, 1, 2]
        calls.clear()
        loss_and_gradients(attachment, adapter, FIRST[:2], states.of(FIRST[:2]))
        assert calls == []  # the last block's output is edited: nothing is left to compute


def test_other_states_give_another_loss(base, tmp_path):
    adapter = make_adapter(base).train()
    with attach(base) as attachment:
        states = kept(attachment, adapter, tmp_path)
        right = loss_and_gradients(attachment, adapter, [0, 1], states.of([0, 1]))[0]
        # Rows 0 and 5 have prompts of the same length.
        assert len(data().examples[0].prompt) == len(data().examples[5].prompt)
        wrong = loss_and_gradients(attachment, adapter, [0, 1], states.of([1, 0]))[0]
    assert abs(right - wrong) > 1e-3


def test_what_is_beyond_the_budget_comes_back_from_disk_bit_for_bit(base, tmp_path):
    adapter = make_adapter(base)
    with attach(base) as attachment:
        memory = kept(attachment, adapter, tmp_path / "memory")
        one_batch = memory.of(FIRST) and memory.n_bytes
        disk = kept(attachment, adapter, tmp_path / "disk", budget=one_batch)
        everything = list(range(N))
        for layer, states in memory.of(everything).items():
            assert torch.equal(disk.of(everything)[layer], states)
        assert disk.n_bytes <= one_batch < memory.n_bytes
        files = list((tmp_path / "disk" / "states").iterdir())
        assert len(files) == disk.n_chunks > 0
        assert not (tmp_path / "memory" / "states").exists()
        disk.clear()
        assert not (tmp_path / "disk" / "states").exists()


@pytest.mark.parametrize("n_processes", [1, 2, 3])
def test_states_do_not_depend_on_who_asks_first(base, tmp_path, n_processes):
    adapter = make_adapter(base)
    with attach(base) as attachment:
        one = kept(attachment, adapter, tmp_path / "1", n_processes=n_processes)
        two = kept(attachment, adapter, tmp_path / "2", n_processes=n_processes)
        for row in range(N):
            one.of([row])
        for row in reversed(range(N)):
            two.of([row, (row + 3) % N])
        for row in range(N):
            assert all(torch.equal(one.of([row])[l], two.of([row])[l]) for l in one.layers)


@pytest.mark.parametrize("family", ["gpt2", "opt"])  # nn.Dropout, and dropout of the block's own
def test_a_base_in_training_mode_forbids_it(family):
    base = tiny_base(build(family))
    with attach(base) as attachment:
        assert inexact_because(attachment, [1]) is None
        base.blocks[2].training = True
        assert "training mode" in inexact_because(attachment, [1])
        base.model.train()
        inputs = {"input_ids": tokens(6)[0][None], "capture": (1,)}
        states = [captured(attachment, **inputs) for _ in range(2)]
        assert not torch.equal(*states)  # and rightly so
        base.model.eval()
        states = [captured(attachment, **inputs) for _ in range(2)]
        assert torch.equal(*states)


def captured(attachment, input_ids, capture):
    with torch.no_grad():
        _, this = attachment.forward(Request(None, capture=capture), input_ids=input_ids)
    return this.states[capture[0]][0]


def test_hooks_of_others_below_the_first_edit_forbid_it(base):
    with attach(base) as attachment:
        above = base.blocks[2].register_forward_hook(lambda *_: None)
        assert inexact_because(attachment, [1]) is None
        inside = base.blocks[1].mlp.register_forward_pre_hook(lambda *_: None)
        assert "block 1" in inexact_because(attachment, [1])
        inside.remove()
        with attachment.calling(Request(None)):  # transformers leaves hooks of its own
            base.model(tokens(4)[0][None], output_hidden_states=True)
        assert inexact_because(attachment, [1]) is None
        above.remove()
