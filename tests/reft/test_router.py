"""The router reads prompts only, and its gates and losses are what they say."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from csreft_core.reft.router import Router, binary_entropy, omega, supervision_loss

pytestmark = pytest.mark.fast

INPUTS = ("first_token", "last_prompt_token", "mean_prompt")
D = 8


def make(**kwargs) -> Router:
    generator = torch.Generator().manual_seed(0)
    return Router(**{"d_model": D, "n_subspaces": 3, "generator": generator, **kwargs})


def states(batch=2, seq=6, seed=1) -> torch.Tensor:
    return torch.randn(batch, seq, D, generator=torch.Generator().manual_seed(seed))


# Row 0: two pads, three prompt tokens, one answer token; row 1: four prompt, two answer tokens.
PROMPT = torch.tensor([[0, 0, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0]]).bool()


@pytest.mark.parametrize("input", INPUTS)
def test_features_by_hand(input):
    h = states()
    features = make(input=input).features(h, PROMPT)
    expected = {
        "first_token": (h[0, 2], h[1, 0]),
        "last_prompt_token": (h[0, 4], h[1, 3]),
        "mean_prompt": (h[0, 2:5].mean(0), h[1, :4].mean(0)),
    }[input]
    torch.testing.assert_close(features, torch.stack(expected), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("input", INPUTS)
@pytest.mark.parametrize("per_token", [False, True])
def test_padding_and_answer_are_never_read(input, per_token):
    router, h = make(input=input, per_token=per_token), states()
    other = torch.where(PROMPT.unsqueeze(-1), h, 1000 * states(seed=2))
    before, after = router.features(h, PROMPT), router.features(other, PROMPT)
    # Before the first prompt token there is nothing to read and nothing is edited.
    real = PROMPT.cumsum(1) > 0 if per_token else torch.ones(2, dtype=torch.bool)
    assert torch.equal(before[real], after[real])
    prompt_changed = torch.where(PROMPT.unsqueeze(-1), states(seed=2), h)
    assert not torch.equal(before[real], router.features(prompt_changed, PROMPT)[real])


@settings(max_examples=50, deadline=None)
@given(
    input=st.sampled_from(INPUTS),
    lengths=st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=4
    ),
)
def test_features_per_token_are_a_naive_loop(input, lengths):
    width = max(map(sum, lengths))
    mask = torch.zeros(len(lengths), width, dtype=torch.bool)
    for row, (pad, n, _) in enumerate(lengths):
        mask[row, pad : pad + n] = True
    h = states(len(lengths), width)
    features = make(input=input, per_token=True).features(h, mask)
    once = make(input=input).features(h, mask)
    for row, (pad, n, _) in enumerate(lengths):
        for s in range(pad, width):
            seen = h[row, pad : min(s, pad + n - 1) + 1]
            expected = {
                "first_token": seen[0],
                "last_prompt_token": seen[-1],
                "mean_prompt": seen.mean(0),
            }
            torch.testing.assert_close(features[row, s], expected[input], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(features[row, -1], once[row], atol=1e-5, rtol=1e-5)


def test_first_token_router_gives_equal_gates_where_the_first_token_is_the_same():
    h = states(20, 5)
    h[:, 0] = h[0, 0]
    mask = torch.ones(20, 5, dtype=torch.bool)
    spreads = {}
    for input in INPUTS:
        router = make(input=input)
        gates = router.gates(router(router.features(h, mask)))
        spreads[input] = (gates.amax(0) - gates.amin(0)).max().item()
    assert spreads["first_token"] <= 1e-6
    assert spreads["mean_prompt"] > 0.05
    assert spreads["last_prompt_token"] > 0.05


def test_hidden_layer_paper_is_half_the_width_without_a_norm():
    paper, small = make(hidden="paper"), make(hidden=5)
    assert (paper.fc1.out_features, small.fc1.out_features) == (D // 2, 5)
    x = states()[0]
    torch.testing.assert_close(small(1000 * x), small(x), atol=1e-3, rtol=1e-3)
    assert (paper(1000 * x) - paper(x)).abs().max() > 1


@pytest.mark.parametrize(
    ("hidden", "n"),
    # m (d + 1) + k (m + 1) with d = 4096 and k = 4; the small one has an RMS norm of d as well.
    [("paper", 8_398_852), (32, 135_332)],
)
def test_parameter_counts_of_the_routers_in_the_digest(hidden, n):
    router = make(d_model=4096, n_subspaces=4, hidden=hidden)
    assert sum(p.numel() for p in router.parameters()) == n


def test_temperature_divides_the_logits():
    x = states()[0]
    torch.testing.assert_close(make(temperature=4.0)(x) * 4, make()(x))


def test_hard_gates_are_exactly_zero_or_one_with_the_sigmoids_gradient():
    logits = torch.linspace(-20, 20, 60).view(20, 3).requires_grad_()
    gates = make(gate="hard").gates(logits)
    assert set(gates.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(gates, (logits > 0).float())
    (gradient,) = torch.autograd.grad(gates.sum(), logits)
    soft = logits.sigmoid()
    torch.testing.assert_close(gradient, soft * (1 - soft))


@given(threshold=st.sampled_from([0.2, 0.5, 0.8]))
def test_threshold_decides_what_is_open(threshold):
    router = make(gate="hard", threshold=threshold)
    logits = torch.linspace(-4, 4, 30).view(10, 3)
    assert torch.equal(router.gates(logits), (logits.sigmoid() > threshold).float())
    assert torch.equal(
        router.binary(torch.tensor([0.1, 0.5, 0.9])),
        (torch.tensor([0.1, 0.5, 0.9]) > threshold).float(),
    )


def test_softmax_gates_sum_to_one_and_sigmoid_gates_do_not():
    logits = 3 * states()[..., :3]
    torch.testing.assert_close(make(gate="softmax").gates(logits).sum(-1), torch.ones(2, 6))
    assert (make().gates(logits).sum(-1) - 1).abs().max() > 0.1


@pytest.mark.parametrize("open_gates", [1, 2, 3, 9])
def test_top_k_keeps_the_largest_sigmoid_gates(open_gates):
    logits = states()[..., :3]
    gates, soft = make(gate="top_k", top_k=open_gates).gates(logits), logits.sigmoid()
    n = min(open_gates, 3)
    assert ((gates > 0).sum(-1) == n).all()
    kept = soft.topk(n, -1).values.sort(-1).values
    torch.testing.assert_close(gates.sort(-1).values[..., -n:], kept)


def test_gates_are_between_zero_and_one():
    for gate in ("sigmoid", "softmax", "hard", "top_k"):
        gates = make(gate=gate).gates(50 * states()[..., :3])
        assert gates.min() >= 0
        assert gates.max() <= 1


def test_binary_entropy_by_hand():
    assert binary_entropy(torch.full((4, 3), 0.5)).item() == pytest.approx(math.log(2))
    assert binary_entropy(torch.tensor([[0.0, 1.0]])).item() == 0.0
    # -(0.1 ln 0.1 + 0.9 ln 0.9) = 0.230259 + 0.094824
    assert binary_entropy(torch.tensor([[0.1, 0.9]])).item() == pytest.approx(0.325083, abs=1e-6)


def test_omega_by_hand():
    gates = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    assert omega(gates, "l1").item() == pytest.approx(0.5)
    # Two gates of 0.5 of four give ln 2 each.
    assert omega(gates, "entropy").item() == pytest.approx(math.log(2) / 2, abs=1e-4)
    # Usage 0.75 and 0.25: ln 2 + 0.75 ln 0.75 + 0.25 ln 0.25 = 0.693147 - 0.562335
    assert omega(gates, "balance").item() == pytest.approx(0.130812, abs=1e-6)
    assert omega(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "balance").item() == pytest.approx(
        0, abs=1e-6
    )
    assert omega(torch.tensor([[1.0, 0.0]]), "balance").item() == pytest.approx(math.log(2))


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(2, 6), st.integers(0, 100))
def test_omega_stays_in_its_range(batch, k, seed):
    gates = torch.rand(batch, k, generator=torch.Generator().manual_seed(seed))
    for kind, top in (("l1", 1.0), ("entropy", math.log(2)), ("balance", math.log(k))):
        assert -1e-6 <= omega(gates, kind).item() <= top + 1e-5


@pytest.mark.parametrize("kind", ["l1", "entropy", "balance"])
def test_omega_of_saturated_gates_has_a_finite_gradient(kind):
    gates = torch.tensor([[0.0, 1.0], [0.0, 1.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(omega(gates, kind), gates)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("gate", ["sigmoid", "softmax"])
def test_supervision_loss_falls_with_right_gates(gate):
    labels = torch.eye(3)
    right = 8 * labels - 4
    wrong = right[[1, 2, 0]]
    losses = [supervision_loss(x, labels, gate).item() for x in (right, torch.zeros(3, 3), wrong)]
    assert losses == sorted(losses)
    assert losses[0] < 0.1 < losses[1] < losses[2]


def test_supervision_loss_by_hand():
    labels = torch.tensor([[1.0, 1.0, 0.0]])
    assert supervision_loss(torch.zeros(1, 3), labels, "sigmoid").item() == pytest.approx(
        math.log(2)
    )
    # Softmax over three equal logits, the label shared by two skills: ln 3.
    assert supervision_loss(torch.zeros(1, 3), labels, "softmax").item() == pytest.approx(
        math.log(3)
    )


def test_supervision_teaches_the_router_to_tell_prompts_apart():
    router, h = make(), states(30, 4)
    labels = F.one_hot(torch.arange(30) % 3, 3).float()
    h = h + 3 * labels.repeat(1, 3)[:, None, :D]
    mask = torch.ones(30, 4, dtype=torch.bool)
    optimizer = torch.optim.Adam(router.parameters(), lr=1e-2)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = supervision_loss(router(router.features(h, mask)), labels, "sigmoid")
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]
    assert torch.equal(router.gates(router(router.features(h, mask))).argmax(1), labels.argmax(1))


def test_start_is_a_function_of_the_generator():
    one, two = make(), make()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    other = make(generator=torch.Generator().manual_seed(1))
    assert not torch.equal(one.fc1.weight, other.fc1.weight)


@pytest.mark.parametrize("hidden", [5, "paper"])
def test_a_standardised_router_is_a_plain_one_behind_scikit_learns_scaler(hidden):
    features = 3 + states(20, 1)[:, 0] * torch.arange(1.0, D + 1)
    features[:, 2] = 7.0  # never varies
    router, plain = make(hidden=hidden, standardize=True), make(hidden=hidden)
    assert torch.equal(router(features), plain(features))  # before it has seen any prompt
    router.fit_scale(features)
    scaled = StandardScaler().fit_transform(features.numpy())
    torch.testing.assert_close(router(features), plain(torch.from_numpy(scaled)))
    assert not torch.allclose(router(features), plain(features), atol=1e-2)
    assert {"mean", "spread"} == set(router.state_dict()) - set(plain.state_dict())
