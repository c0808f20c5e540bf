"""A step in micro-batches: the same loss and gradient as the whole batch at once."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from csreft_core.attachment.attach import attach
from csreft_core.config import Config, RouterConfig
from csreft_core.reft.router import omega
from csreft_core.skills.batching import epoch_order, micro_batches, step_rows
from csreft_core.training.loss import Window, batch_loss
from tests.families import build
from tests.tiny import tiny_base
from tests.training.steps import N_ROWS, adapter_for, differs, encoded, stepped, training

SAME = 1e-6
ROUTERS = {
    "task alone": RouterConfig(),
    "labels": RouterConfig(supervision=1.0),
    "labels, softmax": RouterConfig(supervision=1.0, gate="softmax"),
    "labels, given gates": RouterConfig(supervision=1.0, gates="oracle"),
    "l1": RouterConfig(sparsity=0.5),
    "entropy": RouterConfig(sparsity=0.5, omega="entropy"),
    "balance": RouterConfig(sparsity=0.5, omega="balance"),
    "balance, per token, block 0": RouterConfig(
        sparsity=0.5, omega="balance", granularity="per_token", layer=0
    ),
    "balance, hard": RouterConfig(sparsity=0.5, omega="balance", gate="hard"),
}


@pytest.fixture
def base():
    return tiny_base(build("llama"))


def step(base, folder, router=None, layers=(1, 2), constraint="within", positions="f1+l2", **train):
    train = {"keep_states": False, **train}
    adapter = adapter_for(base, router, layers=layers, constraint=constraint, positions=positions)
    with attach(base) as attachment:
        return stepped(training(attachment, adapter, folder, **train))


@pytest.mark.parametrize("positions", ["f1+l2", "l1"])
@pytest.mark.parametrize("router", ROUTERS.values(), ids=ROUTERS.keys())
def test_loss_and_gradient_are_those_of_the_whole_batch(base, tmp_path, router, positions):
    loss, gradients, stored = step(base, tmp_path, router, positions=positions)
    for accumulate, keep in ((4, False), (3, True), (N_ROWS, False)):
        saving = {"accumulate": accumulate, "keep_states": keep, "positions": positions}
        found, summed, less = step(base, tmp_path, router, **saving)
        assert found == pytest.approx(loss, abs=SAME)
        assert differs(summed, gradients) <= SAME
        assert less < 0.8 * stored


def test_the_overlap_penalty_counts_once(base, tmp_path):
    gradients = step(base, tmp_path, constraint="penalty")[1]
    assert differs(step(base, tmp_path, constraint="penalty", accumulate=4)[1], gradients) <= SAME


def test_the_mean_of_the_micro_batches_means_is_another_gradient(base):
    """What a loop does that normalises each micro-batch by itself."""
    adapter, rows = adapter_for(base), encoded()
    config = Config(adapter=adapter.spec.adapter, router=adapter.spec.router)
    parts = micro_batches(np.arange(N_ROWS), 0, 1, 4)
    results = []
    for each in (False, True):
        adapter.zero_grad()
        with attach(base) as attachment:
            for part in parts:
                lengths = [len(rows.examples[i].answer) for i in (part if each else range(N_ROWS))]
                loss = batch_loss(
                    attachment,
                    adapter,
                    config,
                    [rows.rows[i] for i in part],
                    [rows.examples[i] for i in part],
                    n_tokens=sum(lengths),
                    n_rows=len(lengths),
                    window=Window(),
                )
                (loss / len(parts) if each else loss).backward()
        results.append({n: p.grad.clone() for n, p in adapter.named_parameters()})
    naive, right = results[1], results[0]
    assert differs(naive, right) > 1e-2


def test_balance_is_no_mean_over_micro_batches():
    """The term that needs the mean gates of the whole step: a mean of parts is another number."""
    gates = torch.tensor([[0.9, 0.1], [0.8, 0.3], [0.1, 0.9], [0.2, 0.6]])
    whole = omega(gates, "balance")
    parts = torch.stack([omega(part, "balance") for part in gates.split(2)]).mean()
    assert whole < 0.01 < 0.1 < parts
    means = [torch.stack([omega(p, k) for p in gates.split(2)]).mean() for k in ("l1", "entropy")]
    torch.testing.assert_close(means, [omega(gates, "l1"), omega(gates, "entropy")])


def test_settings_of_accelerate_do_not_scale_the_gradient(base, tmp_path, monkeypatch):
    gradients = step(base, tmp_path)[1]
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert differs(step(base, tmp_path)[1], gradients) == 0


@given(
    n=st.integers(1, 40),
    processes=st.integers(1, 5),
    accumulate=st.integers(1, 9),
)
def test_processes_and_micro_batches_share_every_row_once(n, processes, accumulate):
    rows = np.random.default_rng(n).permutation(n)
    shares = [micro_batches(rows, p, processes, accumulate) for p in range(processes)]
    dealt = [row for parts in shares for part in parts for row in part]
    assert sorted(dealt) == list(range(n))
    sizes = [[len(part) for part in parts] for parts in shares]
    assert all(min(s) >= max(s) - 1 and min(s) >= 1 and len(s) <= accumulate for s in sizes if s)
    totals = [sum(s) for s in sizes]
    assert max(totals) - min(totals) <= 1


@given(n=st.integers(1, 12), size=st.integers(1, 30), seed=st.integers(0, 3))
def test_steps_walk_through_the_epochs(n, size, seed):
    walked = np.concatenate([step_rows(n, size, step, seed) for step in range(4)])
    epochs = [epoch_order(n, seed, epoch) for epoch in range(-(-4 * size // n))]
    assert np.array_equal(walked, np.concatenate(epochs)[: 4 * size])
