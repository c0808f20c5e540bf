"""Tables of the geometry: analytic cases, naive references, the planted pair, sentences."""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from csreft_core.analysis.geometry import leaks, mixing
from csreft_core.analysis.geometry import metrics as sm
from csreft_core.analysis.geometry import sentences as s
from csreft_core.analysis.geometry import tables as g
from csreft_core.analysis.subject import Subject, open_subject
from csreft_core.config import ASSETS, Provenance, preset
from csreft_core.errors import ConfigError, RunError
from csreft_core.inference.engine import Engine
from csreft_core.reft.adapter import save_adapter
from csreft_core.runs.all_runs import create_run
from csreft_core.skills.skill_set import Row, SkillSet
from tests.planted import planted_subject
from tests.tiny import make_adapter, tiny_base

NAMES = ("skill 0", "skill 1", "skill 2")
ROWS = tuple(
    Row((NAMES[i % 3],), " ".join(f"w{5 + i + j}" for j in range(3 + i)), "w4", "test_items")
    for i in range(6)
)
TRAIN = (Row((NAMES[0],), "w90", "w4", "train"),)  # a run needs one
RIGHT_ANGLE = np.pi / 2
# arccos near 90 degrees loses nothing; scipy's sine for small angles is good to sqrt(eps).
ANGLE = 1e-7


@pytest.fixture(scope="module")
def shipped():
    subject = open_subject(str(ASSETS / "examples" / "recommended-0"))
    yield subject
    subject.engine.close()


@pytest.fixture(scope="module")
def planted(shipped):
    return planted_subject(trained=shipped)


@pytest.fixture
def engine(tiny_llama):
    with_hooks = Engine(tiny_base(tiny_llama))
    yield with_hooks
    with_hooks.close()


def tiny_subject(engine, run=None, **settings) -> Subject:
    adapter = make_adapter(engine.base, k=3, **{"rank": 2, **settings})
    provenance = Provenance(
        base_fingerprint=engine.base.fingerprint, template="{prompt}", versions={}
    )
    config = replace(preset("recommended"), adapter=adapter.spec.adapter, provenance=provenance)
    return Subject(engine, adapter, config, SkillSet(ROWS + TRAIN, NAMES), run)


def axis_aligned(subject: Subject) -> None:
    """Give skill i the axes 2 i and 2 i + 1."""
    layer = subject.adapter.layers[0]
    with torch.no_grad():
        raw = torch.eye(subject.adapter.spec.d_model)[:6].view(1, 3, 2, -1)
        subject.adapter.at(layer).raw.copy_(raw)


def random_basis(seed: int, rank: int, d: int) -> np.ndarray:
    return sm.random_subspaces(np.random.default_rng(seed), [rank], d)[0]


def run_rows(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["kind"] == "run"]


@pytest.mark.parametrize(("rank", "d"), [(2, 128), (4, 64), (1, 16)])
def test_random_subspaces_overlap_by_rank_over_width(rank, d):
    # The spread of one pair is about sqrt(2)/r of the mean, so 6000 rows give it to 2 %.
    rng = np.random.default_rng(0)
    pairs = [sm.random_subspaces(rng, (rank, rank), d) for _ in range(6000 // rank)]
    mean = np.mean([sm.overlap(*pair) for pair in pairs])
    assert mean == pytest.approx(rank / d, rel=0.05)
    angles = sm.random_angles(rng, 6000 // rank, (rank, rank), d)
    assert np.mean([np.cos(a) ** 2 for a in angles]) == pytest.approx(rank / d, rel=0.05)


@pytest.mark.parametrize(("d", "mean"), [(64, 67.0), (128, 73.6), (512, 81.7)])
def test_smallest_random_angles_are_those_measured_elsewhere(d, mean):
    # Rank 4, mean of 40 pairs; from an experiment of its own, before this program.
    angles = sm.random_angles(np.random.default_rng(1), 300, (4, 4), d)
    assert np.degrees(np.mean([a[0] for a in angles])) == pytest.approx(mean, abs=1.0)


def test_identical_subspaces_have_angle_zero_and_orthogonal_ones_a_right_angle():
    Q = random_basis(0, 6, 32)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    same = sm.pair_measures(Q[:3], turn @ Q[:3])
    assert same.largest_angle == pytest.approx(0, abs=ANGLE)
    assert same.overlap == pytest.approx(1)
    apart = sm.pair_measures(Q[:3], Q[3:])
    assert apart.smallest_angle == pytest.approx(RIGHT_ANGLE, abs=ANGLE)
    assert apart.overlap == pytest.approx(0, abs=1e-15)
    assert apart.excess == pytest.approx(-3 / 32)


@pytest.mark.fast
def test_measures_of_a_case_by_hand():
    # span(e1, e2) against span(cos 30° e1 + sin 30° e3, e4): angles of 30° and 90°.
    eye, t = np.eye(8), np.pi / 6
    found = sm.pair_measures(eye[:2], np.stack([np.cos(t) * eye[0] + np.sin(t) * eye[2], eye[3]]))
    assert found.smallest_angle == pytest.approx(t)
    assert found.mean_angle == pytest.approx(np.pi / 3)
    assert found.largest_angle == pytest.approx(RIGHT_ANGLE)
    assert found.overlap == pytest.approx(0.75 / 2)  # cos² 30° of two directions
    assert found.excess == pytest.approx(0.375 - 2 / 8)
    assert found.grassmann == pytest.approx(np.sqrt(t**2 + RIGHT_ANGLE**2))
    assert found.chordal == pytest.approx(np.sqrt(0.25 + 1))
    angles = np.array([t, RIGHT_ANGLE])
    again = sm.measures_from_angles(angles, (2, 2), 8)
    assert list(vars(again).values()) == pytest.approx(list(vars(found).values()), abs=1e-12)


def test_chance_is_the_larger_rank_over_the_width():
    """A random line has 2/8 of its square in a plane of 8 dimensions."""
    eye = np.eye(8)
    for line_and_plane in ((eye[:1], eye[:2]), (eye[:2], eye[:1])):
        inside = sm.pair_measures(*line_and_plane)
        assert inside.overlap == pytest.approx(1)
        assert inside.excess == pytest.approx(1 - 2 / 8)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4), st.integers(8, 20))
def test_measures_do_not_depend_on_the_basis_and_are_symmetric(seed, rank_i, rank_j, d):
    rng = np.random.default_rng(seed)
    Q_i, Q_j = sm.random_subspaces(rng, (rank_i, rank_j), d)
    found = sm.pair_measures(Q_i, Q_j)
    turn = np.linalg.qr(rng.standard_normal((rank_i, rank_i)))[0]
    mixed = sm.orthonormal_basis(rng.standard_normal((rank_j, rank_j)) @ Q_j)
    for other in (sm.pair_measures(turn @ Q_i, mixed), sm.pair_measures(Q_j, Q_i)):
        assert list(vars(other).values()) == pytest.approx(list(vars(found).values()), abs=1e-6)
    assert 0 <= found.overlap <= 1
    assert 0 <= found.smallest_angle <= found.largest_angle <= RIGHT_ANGLE + 1e-12
    X = leaks.centred(rng.standard_normal((5, d)))
    shared = leaks.data_overlap(Q_i, Q_j, X)
    assert 0 <= shared <= 1
    assert leaks.data_overlap(mixed, turn @ Q_i, X) == pytest.approx(shared, abs=1e-9)


def test_dependent_rows_span_what_they_span():
    rows = np.array([[1.0, 0, 0, 0], [2.0, 0, 0, 0]])
    assert np.abs(sm.orthonormal_basis(rows)) == pytest.approx(np.eye(4)[:1])
    assert sm.orthonormal_basis(np.eye(4)[:2]).shape == (2, 4)


def test_pairs_table_of_a_constraint_is_at_right_angles_and_knows_chance(engine):
    table = g.pairs_table(tiny_subject(engine, constraint="joint"), draws=50)
    run = run_rows(table)
    assert list(zip(run["a"], run["b"], strict=True)) == [
        ("skill 0", "skill 1"),
        ("skill 0", "skill 2"),
        ("skill 1", "skill 2"),
    ]
    assert run["smallest_angle"].to_numpy() == pytest.approx(RIGHT_ANGLE, abs=1e-6)  # float32 R
    chance = table.set_index("kind")["smallest_angle"]
    assert 0.5 < chance["random 2.5 %"] < chance["random median"] < chance["random 97.5 %"] < 1.57
    assert set(table["draws"]) == {50}
    again = g.pairs_table(tiny_subject(engine, constraint="joint"), draws=50)
    pd.testing.assert_frame_equal(table, again)
    other = g.pairs_table(tiny_subject(engine, constraint="joint"), draws=50, seed=1)
    assert other["overlap"].iloc[-1] != table["overlap"].iloc[-1]


@pytest.mark.fast
def test_pairs_table_is_scipy_on_the_bases(engine):
    subject = tiny_subject(engine, constraint="within")
    R = subject.adapter.at(1).basis()[0].detach().double().numpy()
    singular = np.linalg.svd(R[0] @ R[2].T, compute_uv=False)  # R orthonormal: cosines
    row = run_rows(g.pairs_table(subject)).iloc[1]
    assert np.cos(row["smallest_angle"]) == pytest.approx(singular[0], abs=1e-6)
    assert row["overlap"] == pytest.approx((singular**2).mean(), abs=1e-6)
    assert row["overlap"] > 1e-3


def test_angles_table_of_one_pair(engine):
    subject = tiny_subject(engine, constraint="within")
    table = g.angles_table(subject, pair=("skill 2", "skill 0"))
    run = run_rows(table)
    assert run["m"].tolist() == [1, 2]
    assert run[["a", "b"]].drop_duplicates().values.tolist() == [["skill 2", "skill 0"]]
    whole = run_rows(g.angles_table(subject))
    assert len(whole) == 6
    same = whole[(whole["a"] == "skill 0") & (whole["b"] == "skill 2")]
    assert run["angle"].tolist() == pytest.approx(same["angle"].tolist())
    assert (table[table["kind"] != "run"].groupby("kind")["m"].max() == 2).all()


@pytest.mark.parametrize("pair", [("skill 0", "nobody"), ("skill 0", "skill 0"), ("skill 0",)])
def test_a_pair_that_is_none_is_refused(engine, pair):
    with pytest.raises(ConfigError, match="two different skills of skill 0"):
        g.angles_table(tiny_subject(engine), pair=pair)


@pytest.mark.parametrize("make", [g.pairs_table, g.gram_table, g.leaks_table, g.drift_table])
def test_a_layer_or_group_that_is_not_edited_is_refused(engine, make):
    with pytest.raises(ConfigError, match=r"layer 0 is not edited in this run; choose one of 1"):
        make(tiny_subject(engine), layer=0)
    with pytest.raises(ConfigError, match="group: expected 0 to 0"):
        make(tiny_subject(engine), group=1)


def test_layer_and_group_choose_their_subspaces(engine):
    subject = tiny_subject(
        engine, constraint="within", layers=(0, 2), positions="f1+l1", tied=False
    )
    found = {
        (layer, group): g.pairs_table(subject, layer=layer, group=group)["overlap"].iloc[0]
        for layer in (0, 2)
        for group in (0, 1)
    }
    assert len(set(found.values())) == 4
    assert g.pairs_table(subject)["overlap"].iloc[0] == found[0, 0]


def test_gram_table_is_the_product_of_the_rows_and_its_control_is_random(engine):
    subject = tiny_subject(engine, constraint="within")
    R = subject.adapter.at(1).basis()[0].detach().double().flatten(0, 1).numpy()
    table = g.gram_table(subject)
    run = run_rows(table)
    assert run["value"].to_numpy().reshape(6, 6) == pytest.approx(R @ R.T, abs=1e-12)
    assert run.iloc[1][["row_skill", "row", "column_skill", "column"]].tolist() == [
        "skill 0",
        1,
        "skill 0",
        2,
    ]
    chance = table[table["kind"] == "random"]["value"].to_numpy().reshape(6, 6)
    blocks = chance.reshape(3, 2, 3, 2)
    for i in range(3):
        assert blocks[i, :, i] == pytest.approx(np.eye(2), abs=1e-12)
    assert np.abs(blocks[0, :, 1]).max() > 0.01
    norms = s.gram_norms(run)
    assert norms["skill 0", "skill 1"] == pytest.approx(np.linalg.norm(R[:2] @ R[2:4].T))


def test_write_leak_is_exactly_zero_for_axes_and_not_for_a_shared_one(engine):
    subject = tiny_subject(engine, constraint="none", init="identity")
    axis_aligned(subject)
    table = run_rows(g.leaks_table(subject))
    written = table[table["measure"] == "write leak"]
    assert len(written) == 6
    assert (written["value"] == 0.0).all()
    with torch.no_grad():
        subject.adapter.at(1).raw[0, 1, 0] = torch.eye(32)[0]  # an axis of skill 0
    table = run_rows(g.leaks_table(subject))
    shared = table[table["measure"] == "write leak"].set_index(["source", "target"])["value"]
    assert shared["skill 0", "skill 1"] > 0.1
    assert shared["skill 1", "skill 0"] > 0.1
    assert (shared.drop([("skill 0", "skill 1"), ("skill 1", "skill 0")]) == 0.0).all()


def test_write_leak_of_a_trained_joint_run_is_rounding(shipped):
    table = g.leaks_table(shipped, per_skill=4)
    written = table[table["measure"] == "write leak"]
    # R_i R_j^T of float32 bases is about 1e-7.
    assert run_rows(written)["value"].max() <= 1e-6
    assert written.set_index("kind")["value"]["random median"] > 0.05


def test_write_leak_is_that_of_the_edit_itself(engine):
    subject = tiny_subject(engine, constraint="within")
    subspaces = subject.adapter.at(1)
    h = leaks.site_states(subject, ROWS, 1)
    Q = subspaces.basis()[0].detach().double().numpy()
    with torch.no_grad():
        gate = torch.eye(3)[1].expand(len(h), 3)  # only skill 1
        delta = subspaces(torch.from_numpy(h).float(), gate).double().numpy()
    expected = np.mean([np.linalg.norm(Q[2] @ x) for x in delta]) / np.mean(
        [np.linalg.norm(x) for x in delta]
    )
    table = run_rows(g.leaks_table(subject)).set_index(["measure", "source", "target"])["value"]
    # The edit is computed in float32.
    assert table["write leak", "skill 1", "skill 2"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.fast
def test_read_leak_by_hand():
    W = np.array([[3.0, 4.0, 0.0]])
    assert leaks.read_leak(W, np.eye(3)[:1]) == pytest.approx(0.6)
    assert leaks.read_leak(W, np.eye(3)[:2]) == pytest.approx(1.0)
    assert leaks.read_leak(W, np.eye(3)[2:]) == 0.0
    assert np.isnan(leaks.read_leak(0 * W, np.eye(3)[:1]))


def test_read_leak_of_random_maps_is_the_square_root_of_rank_over_width():
    rng = np.random.default_rng(0)
    squares = [
        leaks.read_leak(rng.standard_normal((2, 64)), random_basis(i, 2, 64)) ** 2
        for i in range(2000)
    ]
    assert np.sqrt(np.mean(squares)) == pytest.approx(np.sqrt(2 / 64), rel=0.05)


def test_read_leak_goes_from_the_subspace_that_is_read_to_the_reader(engine):
    subject = tiny_subject(engine, constraint="within")
    Q = subject.adapter.at(1).basis()[0].detach().double().numpy()
    W = subject.adapter.at(1).W[0].detach().double().numpy()
    table = run_rows(g.leaks_table(subject)).set_index(["measure", "source", "target"])["value"]
    expected = np.linalg.norm(W[2] @ Q[0].T) / np.linalg.norm(W[2])
    assert table["read leak", "skill 0", "skill 2"] == pytest.approx(expected, abs=1e-6)


def test_a_form_without_w_has_no_read_leak(engine):
    subject = tiny_subject(engine, form="lobireft", constraint="within", init="random")
    table = run_rows(g.leaks_table(subject))
    assert table.loc[table["measure"] == "read leak", "value"].isna().all()
    assert table.loc[table["measure"] == "write leak", "value"].notna().all()


def test_data_overlap_with_a_round_cloud_is_the_overlap():
    one, other = sm.random_subspaces(np.random.default_rng(2), (3, 3), 12)
    round_cloud = np.eye(12)  # X^T X = I
    assert leaks.data_overlap(one, other, round_cloud) == pytest.approx(sm.overlap(one, other))
    assert sm.overlap(one, other) > 0.05


def test_orthogonal_subspaces_overlap_where_their_coordinates_move_together():
    h = np.array([[1.0, 2.0, 0.0], [-1.0, -2.0, 1.0], [0.0, 0.0, -1.0]])
    X, eye = leaks.centred(h), np.eye(3)
    assert sm.overlap(eye[:1], eye[1:2]) == 0.0
    assert leaks.data_overlap(eye[:1], eye[1:2], X) == pytest.approx(1.0)
    # Column 0 against 2: covariance -1/2, variances 1 and 1.
    assert leaks.data_overlap(eye[:1], eye[2:], X) == pytest.approx(0.25)
    assert np.cov(h.T) == pytest.approx(X.T @ X)
    assert np.isnan(leaks.data_overlap(eye[:1], eye[1:2], leaks.centred(h[:1])))


def test_states_are_those_of_the_edited_tokens(engine):
    subject = tiny_subject(engine, positions="f1+l2", tied=False)
    prompts = [row.prompt for row in ROWS]
    first = leaks.site_states(subject, ROWS, 1, group=0)
    last = leaks.site_states(subject, ROWS, 1, group=1)
    assert first.shape == (6, 32)
    assert last.shape == (12, 32)
    for i, prompt in enumerate(prompts):
        alone = engine.trace(None, [prompt], layers=(1,), template="{prompt}").before[1][0]
        # Another padding gives another order of the same sums.
        assert first[i] == pytest.approx(alone[0].numpy(), abs=1e-5)
        assert last[2 * i : 2 * i + 2] == pytest.approx(alone[-2:].numpy(), abs=1e-5)


def test_states_follow_the_gates_where_an_earlier_layer_is_edited(engine):
    subject = tiny_subject(engine, layers=(0, 1))
    off = leaks.site_states(subject, ROWS, 1)
    on = leaks.site_states(subject, ROWS, 1, gates="uniform")
    assert np.abs(on - off).max() > 0.01
    assert leaks.site_states(subject, ROWS, 0, gates="uniform") == pytest.approx(
        leaks.site_states(subject, ROWS, 0), abs=1e-5
    )


def test_leaks_table_counts_states_and_one_skill_has_no_pair(engine):
    table = g.leaks_table(tiny_subject(engine), prompts=("w5 w6", "w7"), draws=20)
    assert set(table["n"]) == {2}
    assert len(table) == 6 * 3 + 3 * 3
    single = tiny_subject(engine)
    single = replace(single, adapter=make_adapter(engine.base, k=1))
    assert g.leaks_table(single).empty
    assert run_rows(g.pairs_table(single)).empty
    assert len(g.pairs_table(single)) == 3
    assert run_rows(g.angles_table(single)).empty


def finite_differences(model, ids, layer, token, v, eps=3e-4):
    """d h^(l') / d h^(l) v by central differences in float64, with a hook of its own."""
    states = []
    for sign in (eps, -eps):
        kept = {}

        def push(_module, _args, output, sign=sign):
            hidden = output[0] if isinstance(output, tuple) else output
            hidden = hidden.clone()
            hidden[0, token] += sign * v
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        def keep(name, kept=kept):
            def hook(_module, _args, output):
                kept[name] = (output[0] if isinstance(output, tuple) else output)[0, token].clone()

            return hook

        blocks = model.model.layers
        handles = [blocks[layer].register_forward_hook(push)]
        handles += [blocks[n].register_forward_hook(keep(n)) for n in range(layer, len(blocks))]
        with torch.no_grad():
            model(ids, use_cache=False)
        for handle in handles:
            handle.remove()
        states.append(kept)
    return {n: ((states[0][n] - states[1][n]) / (2 * eps)).numpy() for n in states[0]}


@pytest.mark.parametrize(("positions", "token"), [("l1", -1), ("all_prompt", -1), ("f2", 0)])
def test_pushed_directions_are_finite_differences(tiny_llama, positions, token):
    double = copy.deepcopy(tiny_llama).double()
    engine = Engine(tiny_base(tiny_llama))
    subject = tiny_subject(engine, positions=positions)
    directions = torch.from_numpy(random_basis(3, 2, 32)).float()
    found = mixing.push_forward(subject, ROWS[2], 1, 0, directions)
    engine.close()
    ids = torch.tensor([subject.encoded(ROWS[2:3]).examples[0].prompt])
    assert sorted(found) == [1, 2]
    for m, v in enumerate(directions.double()):
        expected = finite_differences(double, ids, 1, token, v)
        assert found[1][m].numpy() == pytest.approx(v.numpy(), abs=1e-7)  # J is the identity
        # Llama's norm rounds to float32 inside, hence the large step; its own error is about 1e-6.
        assert found[2][m].numpy() == pytest.approx(expected[2], abs=1e-5)
        assert np.abs(expected[2] - v.numpy()).max() > 0.01


def test_mixing_table_is_the_mean_norm_over_prompts(engine):
    subject = tiny_subject(engine, constraint="within", layers=(0, 2))
    table = g.mixing_table(subject, prompts=("w5 w6", "w7 w8 w9"))
    run = run_rows(table)
    assert len(run) == 9 * 3
    assert run.groupby("layer")["own_basis"].first().tolist() == [True, False, True]
    bases = {
        layer: subject.adapter.at(layer).basis()[0].detach().double().numpy() for layer in (0, 2)
    }
    v = torch.from_numpy(bases[0][1]).float()
    rows = subject.asked(("w5 w6", "w7 w8 w9"))
    pushed = [mixing.push_forward(subject, row, 0, 0, v) for row in rows]
    values = run.set_index(["layer", "source", "target"])["value"]
    for layer, reader in ((0, bases[0]), (1, bases[0]), (2, bases[2])):
        expected = np.mean([np.linalg.norm(reader[2] @ p[layer].numpy().T) for p in pushed])
        assert values[layer, "skill 1", "skill 2"] == pytest.approx(expected, abs=1e-6)
    assert values[0, "skill 1", "skill 1"] == pytest.approx(np.sqrt(2), abs=1e-6)
    assert set(table["n"]) == {2}


def test_mixing_starts_at_the_gram_norm_and_is_controlled(shipped):
    table = g.mixing_table(shipped, per_skill=1)
    run = run_rows(table)
    cross = run[run["source"] != run["target"]]
    assert cross.loc[cross["layer"] == 1, "value"].max() < 1e-6
    assert cross.loc[cross["layer"] == 5, "value"].min() > 0.01
    chance = table[(table["kind"] == "random median") & (table["layer"] == 1)]["value"].iloc[0]
    assert chance == pytest.approx(np.sqrt(2 * 2 / 128), rel=0.3)  # sqrt(r r / d)


def snapshot(run, step, R):
    path = run.snapshot_path(step)
    path.parent.mkdir(exist_ok=True)
    save_file({"R.1": torch.as_tensor(R, dtype=torch.float16)}, path)


@pytest.fixture
def run_on_tiny(engine, tmp_path):
    subject = tiny_subject(engine, constraint="none")
    run = create_run(tmp_path / "run", subject.config, subject.skill_set)
    save_adapter(subject.adapter, run.adapter_path)
    return replace(subject, run=run)


def test_drift_table_finds_a_planted_turn(run_on_tiny):
    eye, t = np.eye(32), np.pi / 6
    start = eye[:6].reshape(1, 3, 2, 32)
    turned = start.copy()
    turned[0, 0, 1] = np.cos(t) * eye[1] + np.sin(t) * eye[2]  # skill 0 towards skill 1
    snapshot(run_on_tiny.run, 0, start)
    snapshot(run_on_tiny.run, 50, turned)
    table = g.drift_table(run_on_tiny)
    run = run_rows(table).set_index(["measure", "step", "a", "b"])["angle"]
    resolution = table.set_index("kind")["angle"]["float16 resolution"]
    assert 0 < resolution < 1e-3
    drift = run["from the start"]
    assert drift[0.0].to_numpy() == pytest.approx(0, abs=ANGLE)
    assert drift[50.0, "skill 0", ""] == pytest.approx(t, abs=1e-3)  # float16
    assert drift[50.0, "skill 1", ""] == pytest.approx(0, abs=ANGLE)
    between = run["between skills"]
    assert between[0.0].to_numpy() == pytest.approx(RIGHT_ANGLE, abs=ANGLE)
    assert between[50.0, "skill 0", "skill 1"] == pytest.approx(RIGHT_ANGLE - t, abs=1e-3)
    assert between[50.0, "skill 0", "skill 2"] == pytest.approx(RIGHT_ANGLE, abs=ANGLE)
    text = s.sentence_drift(table)
    assert "From step 0 to 50, skill 0 turned most, by 30.0°" in text
    assert "ever closer than 60.0°" in text


def test_a_damaged_snapshot_is_a_message(run_on_tiny):
    snapshot(run_on_tiny.run, 0, np.eye(32)[:6].reshape(1, 3, 2, 32))
    assert not g.drift_table(run_on_tiny).empty
    run_on_tiny.run.snapshot_path(0).write_bytes(b"no")
    with pytest.raises(RunError, match="damaged"):
        g.drift_table(run_on_tiny)


def test_shipped_snapshots_end_at_the_adapter(shipped):
    found = run_rows(g.drift_table(shipped))
    assert sorted(set(found["step"])) == [0, 50, 100, 150, 200, 250]
    last = found[(found["step"] == 250) & (found["measure"] == "from the start")]
    assert (last["angle"] > 0.5).all()


def test_training_table_and_a_run_without_records(shipped, run_on_tiny):
    table = g.training_table(shipped)
    assert table["chance"].iloc[0] == 2 / 128
    assert table["orthonormality_error"].max() < 1e-5
    assert table["overlap"].iloc[-1] < 1e-6
    for subject in (run_on_tiny, replace(run_on_tiny, run=None)):
        assert g.training_table(subject).empty
        assert g.drift_table(subject).empty
        assert s.sentence_training(g.training_table(subject)).startswith("This run has no records")
        assert s.sentence_drift(g.drift_table(subject)) == "This run has no snapshots."


def test_seeds_table_finds_itself_and_not_a_stranger(shipped):
    examples = ASSETS / "examples"
    others = (str(examples / "recommended-0"), str(examples / "loreft-0"))
    table = g.seeds_table(shipped, others=others)
    same = table[table["kind"] == "same skill"]
    assert same["a"].tolist() == list(shipped.adapter.names)
    assert set(same["run"]) == {"recommended-0"}
    assert same["largest_angle"].to_numpy() == pytest.approx(0, abs=ANGLE)
    different = table[(table["kind"] == "different skills") & (table["run"] == "recommended-0")]
    assert different["smallest_angle"].to_numpy() == pytest.approx(RIGHT_ANGLE, abs=1e-6)
    strange = table[table["run"] == "loreft-0"]
    assert strange["kind"].tolist() == ["different skills"] * 4 + ["all skills together"]
    assert set(strange["rank_b"]) == {8}
    chance = table[table["run"] == ""].groupby(["rank_a", "rank_b"])["overlap"].median()
    assert sorted(chance.index) == [(2, 2), (2, 8), (8, 8)]
    # By chance max(r_i, r_j)/d; the median is a little below the mean.
    assert chance[2, 8] == pytest.approx(8 / 128, rel=0.15)
    assert g.seeds_table(shipped).empty


def test_seeds_table_refuses_a_run_that_does_not_edit_the_layer(engine, run_on_tiny, tmp_path):
    path = str(run_on_tiny.run.path)
    other = tiny_subject(engine, layers=(0, 1))
    assert not g.seeds_table(other, others=(path,), layer=1).empty
    with pytest.raises(ConfigError, match=r"layer 0 is not edited in run 'run'; choose one of 1"):
        g.seeds_table(other, others=(path,), layer=0)
    with pytest.raises(RunError, match="no such run"):
        g.seeds_table(other, others=(str(tmp_path / "none"),))


def test_the_planted_pair_is_found_and_no_other(planted, shipped):
    table = g.pairs_table(planted.subject)
    assert s.closer_than_chance(table) == [planted.pair]
    run = run_rows(table).set_index(["a", "b"])
    # The shared direction is exact to float32 rounding of the two copies.
    assert run.loc[planted.pair, "smallest_angle"] == pytest.approx(0, abs=1e-6)
    assert run.loc[planted.pair, "overlap"] == pytest.approx(0.5, abs=1e-6)
    assert run.drop(planted.pair)["smallest_angle"].min() == pytest.approx(RIGHT_ANGLE, abs=1e-6)
    assert "1 of 6 pairs share more" in s.sentence_pairs(table)
    assert "french and category." in s.sentence_pairs(table)
    assert s.closer_than_chance(g.pairs_table(shipped)) == []


def test_the_planted_pair_leaks_in_both_directions_and_no_other(planted):
    table = g.leaks_table(planted.subject)
    written = table[table["measure"] == "write leak"]
    bound = written.set_index("kind")["value"]["random 97.5 %"]
    above = run_rows(written)[run_rows(written)["value"] > bound]
    a, b = planted.pair
    assert set(zip(above["source"], above["target"], strict=True)) == {(a, b), (b, a)}
    norms = s.gram_norms(run_rows(g.gram_table(planted.subject)))
    assert norms[planted.pair] == pytest.approx(1.0, abs=1e-6)
    assert norms.drop(planted.pair).max() < 1e-6


def test_another_pair_can_be_planted(shipped):
    other = planted_subject(pair=("plural", "spelling"), trained=shipped)
    assert s.closer_than_chance(g.pairs_table(other.subject)) == [("plural", "spelling")]


def test_sentences_of_the_constraint_say_that_it_forces_the_angle(shipped):
    text = s.sentence_pairs(g.pairs_table(shipped))
    assert text.startswith("All 6 pairs are at 90.0°. The constraint “joint” holds them there")
    assert "by construction" in text
    assert "(rank 2, d = 128)" in text
    overlap = s.sentence_pairs(g.pairs_table(shipped), "overlap")
    assert overlap.startswith("The overlap is 0.000 for all 6 pairs; random: 0.00")
    assert "by construction" in overlap
    assert "random: 0.002 to 0.04" in overlap
    gram = s.sentence_gram(g.gram_table(shipped))
    assert "in the random draw it is 0.2" in gram


def pairs_of(*angles, constraint="within"):
    names = [("a", "b"), ("a", "c"), ("b", "c")]
    rows = [("run", *pair, angle) for pair, angle in zip(names, angles, strict=False)]
    rows += [(kind, "", "", q) for kind, q in zip(sm.QUANTILES, (1.0, 1.2, 1.4), strict=True)]
    table = pd.DataFrame(rows, columns=["kind", "a", "b", "smallest_angle"])
    return table.assign(constraint=constraint, rank=2, d_model=16, draws=200)


def test_sentence_of_pairs_without_a_constraint_between_them():
    text = s.sentence_pairs(pairs_of(np.pi / 4, 1.1, 0.9))
    assert text.startswith(
        "The closest pair, a and b, is at 45.0°. 2 of 3 pairs share more than 97.5 % of random "
        "pairs do: a and b and b and c. "
    )
    assert "57.3° to 80.2° (median 68.8°" in text
    mean = s.sentence_pairs(
        pairs_of(0.5, 1.1, 0.9).assign(overlap=[0.25, 0.5, 0.125, 0, 0.1, 0.2]), "overlap"
    )
    assert mean == (
        "Over 3 pairs the overlap goes from 0.125 to 0.500 (a and c); random: 0.000 to 0.200, "
        "median 0.100 (95 % of 200 draws)."
    )
    none = s.sentence_pairs(pairs_of(1.1, 1.2, 1.3))
    assert "None of the 3 pairs is closer than chance." in none
    assert "by construction" not in text


def test_sentences_of_one_subspace(engine):
    single = replace(tiny_subject(engine), adapter=make_adapter(engine.base, k=1))
    assert "one subspace" in s.sentence_pairs(g.pairs_table(single))
    assert "one subspace" in s.sentence_angles(g.angles_table(single))
    assert "no block is beside" in s.sentence_gram(g.gram_table(single))
    assert "no pair" in s.sentence_leaks(g.leaks_table(single), "write leak")
    assert "one subspace" in s.sentence_mixing(g.mixing_table(single, prompts=("w5",)))


def test_sentences_of_leaks_and_mixing_say_the_largest(planted):
    table = g.leaks_table(planted.subject)
    text = s.sentence_leaks(table, "write leak")
    assert "(french → category; 64 states)" in text
    assert "2 of 12 pairs are above." in text
    assert " of 6 pairs" in s.sentence_leaks(table, "data-weighted overlap")
    mixed = s.sentence_mixing(g.mixing_table(planted.subject, per_skill=1))
    assert "At the edited block 1 the norm is at most 1.000" in mixed
    assert "(4 prompts)" in mixed


def test_sentence_of_seeds(shipped):
    others = tuple(str(ASSETS / "examples" / f"recommended-{i}") for i in (1, 2))
    table = g.seeds_table(shipped, others=others)
    text = s.sentence_seeds(table)
    same = table[table["kind"] == "same skill"]
    assert text.startswith("In 8 of 8 cases (4 skills, 2 other runs)")
    assert f"overlap {same['overlap'].min():.3f} to {same['overlap'].max():.3f}" in text
    assert s.sentence_seeds(table.iloc[:0]) == "No other run to compare with."
    lone = g.seeds_table(shipped, others=(str(ASSETS / "examples" / "loreft-0"),))
    assert s.sentence_seeds(lone).startswith("No skill here has a subspace of the same name")


def test_every_table_of_the_view_is_there():
    assert all(callable(getattr(g, f"{name}_table")) for name in g.TABLES)
    assert {n.removesuffix("_table") for n in vars(g) if n.endswith("_table")} - {"step"} == set(
        g.TABLES
    )
