"""What is kept of rows: the same loss and gradient as the plain step, on disk too."""

import numpy as np
import pytest
import torch

from csreft_core.attachment.attach import attach
from csreft_core.config import RouterConfig, preset, with_overrides
from csreft_core.inference.scoring import Encoded, evaluate
from csreft_core.skills.encoding import Example
from csreft_core.skills.skill_set import Row
from csreft_core.training.kept_states import KeptStates, everything_of
from csreft_core.training.loss import Window, batch_loss
from csreft_core.training.row_store import RowStore
from csreft_core.training.snapshots import read_snapshot, save_snapshot
from tests.families import ALL_FAMILIES, FAMILIES, build
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


def kept(attachment, adapter, folder=None, budget=0, **more) -> KeptStates:
    return KeptStates(
        attachment,
        data(),
        everything_of(adapter.spec),
        RowStore(budget, folder),
        **{"order": ORDER, "batch_size": 4, **more},
    )


def loss_and_gradients(attachment, adapter, taken, start=None):
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
        start=start,
    )
    loss.backward()
    return loss.item(), {n: p.grad for n, p in adapter.named_parameters() if p.grad is not None}


def check_step(base, adapter, *taken):
    """Loss and gradients of steps are those of the plain ones."""
    with attach(base) as attachment:
        states = kept(attachment, adapter)
        for rows in taken:
            plain, expected = loss_and_gradients(attachment, adapter, rows)
            found, gradients = loss_and_gradients(attachment, adapter, rows, states.of(rows))
            assert found == pytest.approx(plain, abs=1e-6, rel=1e-6)
            assert gradients.keys() == expected.keys()
            assert any(name.startswith("router.") for name in gradients)
            largest = max(g.abs().max() for g in expected.values())
            for name, gradient in gradients.items():
                assert (gradient - expected[name]).abs().max() <= 1e-6 + 2e-6 * largest, name
    assert not any("forward" in block.__dict__ for block in base.blocks)


STEPS = ([0, 5, 7], [10, 1], [4], FIRST)


@pytest.mark.parametrize(
    "router", [RouterConfig(supervision=1.0), RouterConfig(layer=0, supervision=1.0)]
)
@ALL_FAMILIES
def test_loss_and_gradient_are_those_of_the_plain_step(family, router):
    base = tiny_base(build(family))
    check_step(
        base,
        make_adapter(base, layers=(1, 2), positions="f1+l2", router=router).train(),
        *STEPS,
    )


@pytest.mark.parametrize("positions", ["l1", "l2"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_behind_kept_tokens_is_the_plain_step(family, positions):
    base = tiny_base(build(family))
    router = RouterConfig(supervision=1.0)
    adapter = make_adapter(base, layers=(0, 2), positions=positions, router=router, dropout=0.3)
    check_step(base, adapter.train(), *STEPS)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("input_", ["mean_prompt", "first_token", "last_prompt_token"])
@pytest.mark.parametrize("granularity", ["per_prompt", "per_token"])
@pytest.mark.parametrize("layer", [-1, 0, 1])
def test_the_router_reads_the_whole_prompt(base, attention, input_, granularity, layer):
    base.model.set_attn_implementation(attention)
    router = RouterConfig(layer=layer, input=input_, granularity=granularity, supervision=1.0)
    adapter = make_adapter(base, layers=(1, 2), positions="l2", router=router).train()
    check_step(base, adapter, [0, 5, 7], FIRST)


@pytest.mark.parametrize(("positions", "n_run"), [("l1", 2), ("l2", 3), ("f1+l2", 9), ("all", 9)])
def test_tokens_before_the_first_edited_one_run_once(base, positions, n_run):
    adapter, runs = make_adapter(base, layers=(1,), positions=positions).train(), []
    base.blocks[2].mlp.register_forward_pre_hook(lambda _, args: runs.append(args[0].shape[:2]))
    taken = [i for i in ORDER.tolist() if len(data().examples[i].answer) == 1][:2]
    whole = [len(data().examples[i].prompt) + 1 for i in taken]
    with attach(base) as attachment:
        states = kept(attachment, adapter)
        start = states.of(taken)
        runs.clear()
        loss_and_gradients(attachment, adapter, taken, start)
    # The last block's feed-forward part sees what the head reads, and is tried out once.
    assert max(columns for _, columns in runs) == min(n_run, max(whole))
    assert start.n_columns == max(0, max(whole) - n_run)


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


def same(one, other) -> bool:
    """Whether two starts are the same bits."""
    pairs = [(one.states[layer], other.states[layer]) for layer in one.states]
    pairs += [
        (a, b)
        for k in one.key_values
        for a, b in zip(one.key_values[k], other.key_values[k], strict=True)
    ]
    assert one.states.keys() == other.states.keys()
    assert one.key_values.keys() == other.key_values.keys()
    return one.n_columns == other.n_columns and all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("positions", ["l1", "f1+l2"])
def test_what_is_beyond_the_budget_comes_back_from_disk_bit_for_bit(base, tmp_path, positions):
    adapter = make_adapter(base, positions=positions)
    with attach(base) as attachment:
        memory = kept(attachment, adapter, tmp_path / "memory", 2**30)
        one_batch = memory.of(FIRST) and memory.store.n_bytes
        disk = kept(attachment, adapter, tmp_path / "disk", one_batch)
        everything = list(range(N))
        assert same(disk.of(everything), memory.of(everything))
        assert not same(disk.of(everything), memory.of(everything[::-1]))
        assert disk.store.n_bytes <= one_batch < memory.store.n_bytes
        files = list((tmp_path / "disk").iterdir())
        assert len(files) == disk.store.n_files > 0
        assert not (tmp_path / "memory").exists()
        disk.store.clear()
        assert not (tmp_path / "disk").exists()


@pytest.mark.parametrize("positions", ["l1", "f1+l2"])
def test_the_size_is_known_before(base, positions):
    adapter = make_adapter(base, positions=positions)
    with attach(base) as attachment:
        states = kept(attachment, adapter)
        expected = states.n_bytes(states.bytes_of_token())
        rows = [states._row(i) for i in range(N)]
    assert expected == sum(tensor.nbytes for row in rows for tensor in row.values())
    rest = max(len(row["states.1"]) for row in rows)
    assert rest == (
        4 if positions == "l1" else max(len(e.prompt + e.answer) for e in data().examples)
    )


@pytest.mark.parametrize("positions", ["l1", "f1+l2"])
@pytest.mark.parametrize("n_processes", [1, 2, 3])
def test_states_do_not_depend_on_who_asks_first(base, n_processes, positions):
    adapter = make_adapter(base, positions=positions)
    with attach(base) as attachment:
        one = kept(attachment, adapter, n_processes=n_processes)
        two = kept(attachment, adapter, n_processes=n_processes)
        for row in range(N):
            one.of([row])
        for row in reversed(range(N)):
            two.of([row, (row + 3) % N])
        for row in range(N):
            assert same(one.of([row]), two.of([row]))


@pytest.mark.parametrize("router", [RouterConfig(), RouterConfig(layer=1)])
def test_scores_and_snapshots_start_there_too(base, tmp_path, router):
    adapter = make_adapter(base, layers=(1, 2), positions="l2", router=router)
    runs = []
    with attach(base) as attachment:
        states = kept(attachment, adapter, order=None, batch_size=3)
        plain = evaluate(attachment, adapter, data(), decode=False, batch_size=4)
        save_snapshot(tmp_path / "plain", attachment, adapter, data(), "learned")
        states.of([*range(N)])
        base.blocks[2].register_forward_pre_hook(lambda _, args: runs.append(args[0].shape[1]))
        scores = evaluate(attachment, adapter, data(), decode=False, batch_size=4, start=states.of)
        save_snapshot(tmp_path / "short", attachment, adapter, data(), "learned", states)
    assert runs == [5, 5, 5, 2]
    assert scores.keys() == plain.keys()
    for name, skill in plain["skills"].items():
        assert scores["skills"][name] == pytest.approx(skill, abs=1e-6, rel=1e-6)
    expected, found = (read_snapshot(tmp_path / name) for name in ("plain", "short"))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():  # float16 has steps of 1e-3
        assert torch.allclose(found[name].float(), tensor.float(), atol=2e-3, rtol=2e-3), name
