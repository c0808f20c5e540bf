"""The stacked edit against a naive one, and the promises of the constraints."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from csreft_core.errors import ConfigError
from csreft_core.reft.subspaces import Subspaces, constrained_basis, orthonormal_rows

FORMS = ("loreft", "direft", "noreft", "consreft", "lobireft")
CONSTRAINTS = ("none", "within", "joint", "penalty", "sequential", "fixed")
EXACT = ("within", "joint", "sequential", "fixed")


def make(*, d=12, k=3, r=2, seed=0, moved=True, **kwargs) -> Subspaces:
    generator = torch.Generator().manual_seed(seed)
    subspaces = Subspaces(d_model=d, n_subspaces=k, rank=r, generator=generator, **kwargs)
    if moved:
        with torch.no_grad():
            for p in subspaces.parameters():
                if p.requires_grad:
                    p += torch.randn(p.shape, generator=generator)
    return subspaces


def states(n=5, d=12, seed=7) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def naive(subspaces: Subspaces, h: torch.Tensor, gates: torch.Tensor, group=0) -> torch.Tensor:
    """Three loops in float64: sites, subspaces, rows."""
    R = constrained_basis(subspaces.raw.detach(), subspaces._basis_rule)[group].double()
    b = subspaces.b.detach()[group].double()
    W = None if subspaces.W is None else subspaces.W.detach()[group].double()
    delta = torch.zeros(h.shape, dtype=torch.float64)
    for s, i, row in itertools.product(range(len(h)), range(R.shape[0]), range(R.shape[1])):
        x = h[s].double()
        coordinate = b[i, row]
        if subspaces.form in ("loreft", "direft", "noreft"):
            coordinate = coordinate + W[i, row] @ x
        if subspaces.form in ("loreft", "noreft", "consreft"):
            coordinate = coordinate - R[i, row] @ x
        delta[s] += gates[s, i].double() * coordinate * R[i, row]
    return delta


PAIRS = [
    (form, constraint)
    for form, constraint in itertools.product(FORMS, CONSTRAINTS)
    if not (form == "noreft" and constraint in EXACT)
]


@pytest.mark.fast
@pytest.mark.parametrize(("form", "constraint"), PAIRS)
def test_stacked_edit_is_the_naive_triple_loop(form, constraint):
    subspaces = make(form=form, constraint=constraint, init="random", n_groups=2)
    h, gates = states(), torch.rand(5, 3)
    for group in (0, 1):
        delta, expected = subspaces(h, gates, group), naive(subspaces, h, gates, group)
        # float32 sums of 12 products of numbers of size 1 to 10 round to about 1e-6.
        torch.testing.assert_close(delta.double(), expected, atol=1e-5, rtol=1e-5)
        assert expected.abs().max() > 0.1


@pytest.mark.parametrize(("form", "constraint"), PAIRS)
def test_prepared_edit_is_the_edit(form, constraint):
    subspaces = make(form=form, constraint=constraint, init="random", n_groups=2).eval()
    h, gates = states(), torch.rand(5, 3)
    with torch.no_grad():
        for group in (0, 1):
            prepared = subspaces.at_gates(gates, group)
            for x in (h, 2 * h):
                torch.testing.assert_close(prepared(x), subspaces(x, gates, group))
            off = subspaces.at_gates(torch.zeros(5, 3), group)
            assert not off(h).any()


@settings(max_examples=40, deadline=None)
@given(
    k=st.integers(1, 4),
    r=st.integers(1, 4),
    spare=st.integers(0, 5),
    pair=st.sampled_from(PAIRS),
    seed=st.integers(0, 1000),
)
def test_stacked_edit_is_the_naive_loop_for_all_shapes(k, r, spare, pair, seed):
    d = k * r + spare
    subspaces = make(d=d, k=k, r=r, seed=seed, form=pair[0], constraint=pair[1], init="random")
    h, gates = states(3, d, seed), torch.rand(3, k)
    expected = naive(subspaces, h, gates)
    torch.testing.assert_close(subspaces(h, gates).double(), expected, atol=2e-4, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(pair=st.sampled_from(PAIRS), a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_edit_is_linear_in_the_gates(pair, a, b):
    subspaces = make(form=pair[0], constraint=pair[1], init="random")
    h, one, two = states(), torch.rand(5, 3), torch.rand(5, 3)
    mixed = subspaces(h, a * one + b * two)
    parts = a * subspaces(h, one) + b * subspaces(h, two)
    torch.testing.assert_close(mixed, parts, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("constraint", ["none", "within", "penalty"])
def test_permuting_the_subspaces_changes_nothing(constraint):
    subspaces, permuted = make(constraint=constraint), make(constraint=constraint)
    order = [2, 0, 1]
    with torch.no_grad():
        for p, q in zip(permuted.parameters(), subspaces.parameters(), strict=True):
            p.copy_(q[:, order])
    h, gates = states(), torch.rand(5, 3)
    same = permuted(h, gates[:, order])
    torch.testing.assert_close(same, subspaces(h, gates), atol=1e-5, rtol=1e-5)
    assert (permuted(h, gates) - same).abs().max() > 0.1


@pytest.mark.parametrize("constraint", ["joint", "sequential", "fixed"])
def test_joint_identity_of_coordinates(constraint):
    subspaces, h, gates = make(constraint=constraint), states(), torch.rand(5, 3)
    R, W, b = subspaces.basis()[0], subspaces.W[0], subspaces.b[0]
    after = h + subspaces(h, gates)
    for j in range(3):
        alpha = gates[:, j : j + 1]
        expected = (1 - alpha) * (h @ R[j].T) + alpha * (h @ W[j].T + b[j])
        torch.testing.assert_close(after @ R[j].T, expected, atol=1e-5, rtol=1e-5)


def test_joint_identity_needs_the_joint_constraint():
    subspaces, h = make(constraint="within"), states()
    R = subspaces.basis()[0]
    moved = subspaces(h, torch.tensor([[1.0, 0, 0]]).expand(5, -1)) @ R[1].T
    assert moved.abs().max() > 0.1


@pytest.mark.parametrize(("form", "constraint"), PAIRS)
def test_complement_of_the_span_is_untouched(form, constraint):
    subspaces, h = make(form=form, constraint=constraint, init="random"), states()
    delta = subspaces(h, torch.rand(5, 3))
    rows = subspaces.basis()[0].flatten(0, 1)
    Q = orthonormal_rows(rows)
    outside = delta - delta @ Q.T @ Q
    # Relative to the edit, because free rows are not of length one.
    assert outside.abs().max() <= 1e-5 * delta.abs().max()
    assert delta.abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("form", "constraint"), PAIRS)
def test_closed_gates_add_exactly_zero(form, constraint, dtype):
    subspaces, h = make(form=form, constraint=constraint, init="random"), states().to(dtype)
    closed = subspaces(h, torch.zeros(5, 3))
    assert torch.equal(h + closed.to(dtype), h)
    opened = subspaces(h, torch.ones(5, 3))
    assert not torch.equal(h + opened.to(dtype), h)


def test_closed_gate_leaves_its_subspace_out():
    subspaces, h = make(), states()
    full = subspaces(h, torch.tensor([[1.0, 0.0, 1.0]]).expand(5, -1))
    with torch.no_grad():
        subspaces.b[:, 1] += 100.0
    assert torch.equal(subspaces(h, torch.tensor([[1.0, 0.0, 1.0]]).expand(5, -1)), full)
    assert not torch.equal(subspaces(h, torch.ones(5, 3)), full)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("form", "constraint"), [pair for pair in PAIRS if pair[0] in ("loreft", "noreft", "direft")]
)
def test_identity_start_changes_nothing(form, constraint):
    subspaces, h = make(form=form, constraint=constraint, moved=False), states()
    with torch.no_grad():
        assert torch.equal(subspaces(h, torch.ones(5, 3)), torch.zeros(5, 12))
    assert torch.equal(subspaces(h, torch.ones(5, 3)), torch.zeros(5, 12))
    random = make(form=form, constraint=constraint, moved=False, init="random")
    assert random(h, torch.ones(5, 3)).abs().max() > 0.01


def test_lobireft_starts_at_zero_and_consreft_does_not():
    h = states()
    assert torch.equal(make(form="lobireft", moved=False)(h, torch.ones(5, 3)), torch.zeros(5, 12))
    assert make(form="consreft", moved=False)(h, torch.ones(5, 3)).abs().max() > 0.1


def _trained(constraint: str, steps=30, **kwargs) -> tuple[Subspaces, float]:
    """30 AdamW steps with decay on W and b; the largest constraint error on the way."""
    subspaces = make(constraint=constraint, moved=False, d=16, **kwargs)
    named = [(n, p) for n, p in subspaces.named_parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in named if n != "raw"], "weight_decay": 0.1},
            {"params": [p for n, p in named if n == "raw"], "weight_decay": 0.0},
        ],
        lr=3e-2,
    )
    worst = 0.0
    h, target = states(32, 16), states(32, 16, seed=8)
    gates = torch.rand(32, 3, generator=torch.Generator().manual_seed(9))
    for _ in range(steps):
        optimizer.zero_grad()
        (h + subspaces(h, gates) - target).square().mean().backward()
        optimizer.step()
        worst = max(worst, _promise_error(subspaces, constraint))
    return subspaces, worst


def _promise_error(subspaces: Subspaces, constraint: str) -> float:
    """Largest entry of R R^T - I, of each subspace or of all rows, worked out here."""
    R = constrained_basis(subspaces.raw.detach(), constraint).double()
    R = R if constraint in ("none", "within", "penalty") else R.flatten(1, 2)
    return (R @ R.mT - torch.eye(R.shape[-2], dtype=torch.float64)).abs().max().item()


@pytest.mark.parametrize("constraint", ["joint", "within", "sequential", "fixed", "penalty"])
def test_constraint_holds_through_training_with_weight_decay(constraint):
    subspaces, worst = _trained(constraint)
    # float32 QR of 6 rows; the bar of the design is 1e-5.
    assert worst <= 1e-5
    assert abs(subspaces.constraint_error() - _promise_error(subspaces, constraint)) <= 1e-6
    start = make(constraint=constraint, moved=False, d=16)
    assert not torch.equal(start.W, subspaces.W)
    assert torch.equal(start.raw, subspaces.raw) == (constraint == "fixed")


def test_without_a_constraint_the_rows_drift():
    subspaces, worst = _trained("none")
    assert worst > 1e-2
    assert subspaces.orthonormality_error() > 1e-2
    assert subspaces.constraint_error() == 0.0


def test_ill_conditioned_rows_stay_orthonormal():
    raw = torch.randn(1, 2, 3, 16, generator=torch.Generator().manual_seed(0))
    raw = raw * torch.logspace(-3, 3, 6).view(1, 2, 3, 1)
    for constraint in ("within", "joint", "sequential"):
        R = constrained_basis(raw, constraint)
        rows = R if constraint == "within" else R.flatten(1, 2)
        assert (rows @ rows.mT - torch.eye(rows.shape[-2])).abs().max() <= 1e-5


def test_orthonormal_rows_keep_the_span_and_a_positive_diagonal():
    A = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    Q = orthonormal_rows(A)
    torch.testing.assert_close(A @ Q.T @ Q, A, atol=1e-5, rtol=1e-5)
    T = A @ Q.T  # A^T = Q T means A = T^T Q^T, lower triangular
    assert (T.diagonal() > 0).all()
    torch.testing.assert_close(T.triu(1), torch.zeros(3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(orthonormal_rows(Q), Q, atol=1e-6, rtol=0)


def _moved_bases(constraint: str, skill: int) -> list[bool]:
    """Which R_i a loss on one skill alone moves: is a gradient of its raw rows not exactly 0."""
    subspaces, h = make(constraint=constraint), states()
    gates = torch.nn.functional.one_hot(torch.tensor(skill), 3).float().expand(5, -1)
    (subspaces(h, gates) * states(seed=9)).sum().backward()
    return [bool(g.abs().max() > 0) for g in subspaces.raw.grad[0]]


def test_sequential_loss_of_a_skill_moves_no_earlier_basis():
    assert _moved_bases("sequential", 2) == [False, False, True]
    assert _moved_bases("sequential", 1)[:2] == [False, True]


def test_joint_loss_of_a_skill_moves_earlier_bases():
    assert _moved_bases("joint", 2) == [True, True, True]


def test_fixed_basis_gets_no_gradient():
    subspaces = make(constraint="fixed")
    subspaces(states(), torch.ones(5, 3)).sum().backward()
    assert subspaces.raw.grad is None
    assert subspaces.W.grad is not None


def test_overlap_is_zero_for_disjoint_and_one_for_equal_subspaces():
    joint, same = make(constraint="joint"), make(constraint="none")
    assert joint.overlap() <= 1e-6
    with torch.no_grad():
        same.raw[:] = torch.randn(2, 12, generator=torch.Generator().manual_seed(1))
    assert same.overlap() == pytest.approx(1.0, abs=1e-5)
    assert make(k=1).overlap() == 0.0


def test_overlap_of_random_subspaces_is_r_over_d():
    values = [make(d=64, k=2, r=4, constraint="within", seed=s).overlap() for s in range(200)]
    # Mean of 200 draws with a spread of about 0.03.
    assert sum(values) / 200 == pytest.approx(4 / 64, rel=0.1)


def test_overlap_penalty_by_hand():
    subspaces = make(d=4, k=3, r=1, constraint="none")
    with torch.no_grad():
        subspaces.raw[0, :, 0] = torch.tensor([[1.0, 0, 0, 0], [2, 0, 0, 0], [3, 4, 0, 0]])
    # Products 2, 3 and 6; squares 4 + 9 + 36.
    assert subspaces.overlap_penalty().item() == pytest.approx(49.0)


def test_overlap_penalty_pulls_the_bases_apart():
    subspaces = make(d=8, k=2, r=2, constraint="penalty")
    before = subspaces.overlap()
    optimizer = torch.optim.Adam([subspaces.raw], lr=3e-2)
    for _ in range(60):
        optimizer.zero_grad()
        subspaces.overlap_penalty().backward()
        optimizer.step()
    assert subspaces.overlap() < 0.05 * before


def test_too_many_rows_are_an_error_that_says_so():
    with pytest.raises(ConfigError, match=r"k\*r = 3\*5 = 15 is more than d_model 12"):
        make(r=5, constraint="joint")
    with pytest.raises(ConfigError, match="rank 13 is more than d_model 12"):
        make(r=13, constraint="within")
    make(r=5, constraint="within")
    make(r=13, constraint="none")


def test_wrong_shape_of_gates_is_caught():
    with pytest.raises(TypeCheckError, match="gates"):
        make()(states(), torch.ones(4, 3))


@pytest.mark.parametrize("form", FORMS)
def test_parameter_counts_of_an_edit(form):
    d, k, r = 12, 3, 2
    constraint = "none" if form == "noreft" else "joint"
    n = sum(p.numel() for p in make(form=form, constraint=constraint).parameters())
    assert n == k * (r * (2 * d + 1) if form in ("loreft", "direft", "noreft") else r * (d + 1))


def test_parameter_count_of_a_fixed_basis():
    subspaces = make(constraint="fixed")
    assert sum(p.numel() for p in subspaces.parameters() if p.requires_grad) == 3 * 2 * (12 + 1)


def test_dropout_is_repeatable_off_in_evaluation_and_right_on_average():
    subspaces, h, gates = make(d=64, r=8, dropout=0.5), states(200, 64), torch.ones(200, 3)
    kept = subspaces.eval()(h, gates)
    subspaces.train().dropout_seed = 3
    dropped = subspaces(h, gates)
    assert torch.equal(subspaces(h, gates), dropped)
    assert not torch.equal(dropped, kept)
    subspaces.dropout_seed = 5
    assert not torch.equal(subspaces(h, gates), dropped)
    R = subspaces.basis()[0].flatten(0, 1)
    coordinates, full = dropped @ R.T, kept @ R.T
    share = (coordinates.abs() < 1e-4 * full.abs()).float().mean().item()
    assert share == pytest.approx(0.5, abs=0.05)
    alive = coordinates.abs() > 1e-3
    torch.testing.assert_close(coordinates[alive], 2 * full[alive], atol=1e-3, rtol=1e-3)


def test_kept_products_follow_the_parameters():
    subspaces, h, gates = make(), states(), torch.ones(5, 3)
    with torch.no_grad():
        before = subspaces(h, gates)
        assert torch.equal(subspaces(h, gates), before)
        subspaces.b += 1.0
        assert not torch.equal(subspaces(h, gates), before)
        with_loaded = make(seed=5)
        subspaces.load_state_dict(with_loaded.state_dict())
        assert torch.equal(subspaces(h, gates), with_loaded(h, gates))


def test_an_orthonormal_start_is_used_bit_for_bit_without_gradients():
    R = orthonormal_rows(torch.randn(6, 12, generator=torch.Generator().manual_seed(2)))
    subspaces = make(constraint="joint")
    with torch.no_grad():
        subspaces.raw.copy_(R.view(1, 3, 2, 12))
        assert torch.equal(subspaces.basis().view(6, 12), R)
        subspaces.raw.mul_(2.0)
        assert not torch.equal(subspaces.basis(), subspaces.raw)
