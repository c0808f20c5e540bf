"""States: planted edits with a known share, identities of the edit, tables against loops."""

import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from csreft_core.analysis.geometry.metrics import orthonormal_rows
from csreft_core.analysis.states import projection as p
from csreft_core.analysis.states import rows as state_rows
from csreft_core.analysis.states import tables as s
from csreft_core.analysis.states.choices import BASES
from csreft_core.analysis.statistics.intervals import units_of
from csreft_core.analysis.subject import Subject, open_subject
from csreft_core.config import AdapterConfig, Provenance, RouterConfig, preset
from csreft_core.errors import ConfigError, RunError
from csreft_core.inference.engine import Engine
from csreft_core.reft.adapter import load_adapter
from csreft_core.runs.all_runs import open_run
from csreft_core.skills.skill_set import Row, SkillSet
from tests.repository import ROOT
from tests.tiny import make_adapter, tiny_base

NAMES = ("skill 0", "skill 1")
TEXTS = ("w5 w6", "w7 w8 w9", "w10", "w11 w12 w13 w14", "w15 w16", "w17 w18 w19", "w20 w21", "w22")
ROWS = tuple(
    Row((NAMES[i % 2],), f"w3 {text} w4", "w30", "test_items") for i, text in enumerate(TEXTS)
)


@pytest.fixture
def engine(tiny_llama):
    with_hooks = Engine(tiny_base(tiny_llama))
    yield with_hooks
    with_hooks.close()


def subject(engine, rows=ROWS, **settings):
    provenance = Provenance(base_fingerprint="0" * 64, template="{prompt}", versions={})
    config = replace(preset("recommended"), provenance=provenance)
    adapter = make_adapter(engine.base, **{"rank": 2, "positions": "l1", **settings})
    return Subject(engine, adapter, config, SkillSet(tuple(rows), NAMES))


def cloud(rng, n=20, d=8):
    """Base states that vary along the first two directions only."""
    h = np.zeros((n, d))
    h[:, 0], h[:, 1] = 5 * rng.normal(size=n), 3 * rng.normal(size=n)
    return h + 7.0  # PCA must centre


# Axes and shares ------------------------------------------------------------------------------


def test_a_planted_edit_is_hidden_by_base_axes_and_shown_by_those_of_the_differences():
    rng = np.random.default_rng(0)
    h, delta = cloud(rng), np.zeros((20, 8))
    delta[:, 2] = rng.uniform(1, 2, 20)
    base = p.fit_axes(h, h + delta, "base", 2)
    assert p.energy_shares(delta, base).sum() == pytest.approx(0, abs=1e-24)
    assert p.variance_shares(h, base).sum() == pytest.approx(1)
    differences = p.fit_axes(h, h + delta, "differences", 2)
    shares = p.energy_shares(delta, differences)
    assert shares == pytest.approx([1, 0], abs=1e-12)
    assert np.abs(differences[0]) == pytest.approx(np.eye(8)[2])


def test_a_mixed_edit_has_the_share_that_one_works_out_by_hand():
    h = cloud(np.random.default_rng(1))
    delta = np.zeros((20, 8))
    delta[:, 0], delta[:, 5] = 3.0, 4.0  # 9 of 25 along the first base axis
    base = p.fit_axes(h, h + delta, "base", 2)
    assert p.energy_shares(delta, base).sum() == pytest.approx(9 / 25)
    # All prompts move alike: without centring, one axis shows all of it.
    assert p.energy_shares(delta, p.fit_axes(h, h + delta, "differences", 2))[0] == pytest.approx(1)
    joint = p.energy_shares(delta, p.fit_axes(h, h + delta, "joint", 2)).sum()
    assert 9 / 25 <= joint <= 1


@pytest.mark.parametrize("basis", BASES)
def test_axes_are_orthonormal_with_a_fixed_sign(basis):
    rng = np.random.default_rng(2)
    h, changed = rng.normal(size=(15, 6)), rng.normal(size=(15, 6))
    axes = p.fit_axes(h, changed, basis, 3)
    assert axes @ axes.T == pytest.approx(np.eye(3), abs=1e-12)
    largest = axes[np.arange(3), np.abs(axes).argmax(1)]
    assert (largest > 0).all()
    again = p.fit_axes(h[::-1], changed[::-1], basis, 3)
    assert again == pytest.approx(axes, abs=1e-9)


def test_no_axes_show_more_of_the_edit_than_those_of_the_differences():
    rng = np.random.default_rng(3)
    h, delta = rng.normal(size=(30, 6)), rng.normal(size=(30, 6)) @ np.diag([3, 2, 1, 1, 1, 1])
    best = p.energy_shares(delta, p.fit_axes(h, h + delta, "differences", 2)).sum()
    singular = np.linalg.svd(delta, compute_uv=False) ** 2
    assert best == pytest.approx(singular[:2].sum() / singular.sum())
    others = [orthonormal_rows(rng.normal(size=(2, 6))) for _ in range(200)]
    shares = [p.energy_shares(delta, axes).sum() for axes in others]
    assert max(shares) < best
    assert np.mean(shares) == pytest.approx(2 / 6, rel=0.1)  # random axes show n_axes / d


def test_axes_of_a_subspace_come_first_and_are_completed():
    rng = np.random.default_rng(4)
    h, R = rng.normal(size=(12, 6)), np.eye(6)[[4]]
    axes = p.fit_axes(h, h, "", 3, R)
    assert axes[0] == pytest.approx(R[0])
    assert axes @ axes.T == pytest.approx(np.eye(3), abs=1e-12)
    # One point many times: no component to complete with, still an orthonormal basis.
    same = np.ones((12, 6))
    axes = p.fit_axes(same, same, "", 2, np.eye(6)[[0]])
    assert axes @ axes.T == pytest.approx(np.eye(2), abs=1e-12)


def test_shares_of_nothing_are_not_a_number():
    same, axes = np.ones((5, 4)), np.eye(4)[:2]
    assert np.isnan(p.variance_shares(same, axes)).all()
    assert np.isnan(p.energy_shares(np.zeros((5, 4)), axes)).all()
    with pytest.raises(ConfigError, match="at least 3 prompts"):
        p.fit_axes(same[:2], same[:2], "base", 2)


@pytest.mark.parametrize("position", ["last", "first", "mean", "-1", "-2", "-3"])
def test_tokens_are_counted_without_the_padding(position):
    values = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    lengths = (4, 2, 1)
    mask = torch.tensor([[c >= 4 - n for c in range(4)] for n in lengths])
    found, there = p.at_token(values, mask, position)
    for i, n in enumerate(lengths):
        real = values[i, 4 - n :]
        back = {"last": 1, "first": n}.get(position) or -int(position) if position != "mean" else 1
        assert bool(there[i]) == (back <= n)
        if back <= n:
            expected = real.mean(0) if position == "mean" else real[n - back]
            torch.testing.assert_close(found[i], expected)


@pytest.mark.parametrize("position", ["", "middle", "2", "0"])
def test_an_unknown_token_is_refused(position):
    with pytest.raises(ConfigError, match="unknown token position"):
        p.at_token(torch.zeros(1, 2, 3), torch.ones(1, 2, dtype=torch.bool), position)


# Tables of states -----------------------------------------------------------------------------


def reference(subject, layer, column=-1, gates="learned"):
    """States of the rows one by one, in float64, without the code under test."""
    engine, found = subject.engine, ([], [])
    for row in subject.skill_set.rows:
        options = {"layers": (layer,), "template": "{prompt}"}
        plain = engine.trace(None, [row.prompt], **options)
        edited = engine.trace(subject.adapter, [row.prompt], gates, **options)
        found[0].append(plain.after[layer][0, column].double().numpy())
        found[1].append(edited.after[layer][0, column].double().numpy())
    return np.array(found[0]), np.array(found[1])


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("n_axes", [2, 3])
def test_the_states_table_is_the_projection_of_the_states(engine, layer, n_axes):
    one = subject(engine)
    table = s.states_table(one, layer=layer, n_axes=n_axes)
    h, changed = reference(one, layer)
    _, spectrum, axes = np.linalg.svd(h - h.mean(0), full_matrices=False)
    for i, axis in enumerate(("x", "y", "z")[:n_axes]):
        sign = np.sign(axes[i, np.abs(axes[i]).argmax()])
        for kind, states in (("base", h), ("edited", changed)):
            expected = (states - h.mean(0)) @ axes[i] * sign
            found = table.loc[table["kind"] == kind, axis].to_numpy()
            np.testing.assert_allclose(found, expected, atol=1e-4)
        share = spectrum[i] ** 2 / np.square(spectrum).sum()
        assert table[f"{axis}_variance_frac"].iloc[0] == pytest.approx(share, abs=1e-5)
        delta = changed - h
        share = np.square(delta @ axes[i]).sum() / np.square(delta).sum()
        assert table[f"{axis}_edit_frac"].iloc[0] == pytest.approx(share, abs=1e-4)
    assert ("z" in table) == (n_axes == 3)
    moved = np.linalg.norm(changed - h, axis=1)
    assert moved.min() > 0.1
    np.testing.assert_allclose(table["moved"], np.tile(moved, 2), rtol=1e-4)


def test_ones_own_prompt_is_drawn_but_moves_no_axis(engine):
    one = subject(engine)
    alone, both = s.states_table(one), s.states_table(one, prompts=("w40 w41 w42",))
    own = both[both["own"]]
    assert own["prompt"].tolist() == ["w40 w41 w42"] * 2
    assert own["skill"].tolist() == ["", ""]
    assert not np.allclose(own[["x", "y"]].iloc[0], own[["x", "y"]].iloc[1])
    pd.testing.assert_frame_equal(both[~both["own"]].reset_index(drop=True), alone)
    # A prompt of the data lies where it lies among the others.
    known = s.states_table(one, prompts=(ROWS[3].prompt,))
    again = known[known["prompt"].eq(ROWS[3].prompt)].sort_values(["kind", "own"])[["x", "y"]]
    np.testing.assert_allclose(again.to_numpy()[::2], again.to_numpy()[1::2], atol=1e-5)


def test_nothing_moves_below_the_edit_and_before_the_edited_token(engine):
    one = subject(engine)
    for where in (
        {"layer": 0},
        {"position": "-2"},
        {"gates": "off"},
        {"layer": 2, "position": "-2"},
    ):
        table = s.states_table(one, **where)
        assert (table["moved"] == 0).all(), where
        assert np.isnan(table["x_edit_frac"]).all()
    for where in ({"layer": 1}, {"layer": 2}, {"gates": "uniform"}):
        assert (s.states_table(one, **where)["moved"] > 0).all(), where


def test_a_token_that_all_prompts_share_has_no_spread(engine):
    table = s.states_table(subject(engine), position="first")  # every row begins with w3
    assert np.isnan(table["x_variance_frac"]).all()
    assert table[["x", "y"]].abs().to_numpy().max() < 1e-4


def test_rows_without_the_token_are_left_out(engine):
    table = s.states_table(subject(engine), position="-4")
    assert table.loc[table["kind"] == "base", "prompt"].tolist() == [
        row.prompt for row in ROWS if len(row.prompt.split()) >= 4
    ]
    with pytest.raises(ConfigError, match="no prompt has a token"):
        s.states_table(subject(engine), position="-30")


def test_many_rows_are_capped(engine, monkeypatch):
    monkeypatch.setattr(state_rows, "MOST_PROMPTS", 4)
    table = s.states_table(subject(engine), per_skill=None)
    assert table[table["kind"] == "base"].groupby("skill").size().tolist() == [2, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": 3}, "layers 0 to 2"),
        ({"layer": -1}, "layers 0 to 2"),
        ({"n_axes": 4}, "choose 2 or 3"),
        ({"basis": "umap"}, "unknown basis 'umap'"),
        ({"basis": "subspace:cooking"}, "no subspace 'cooking'"),
        ({"basis": "subspace:skill 0", "layer": 2}, "has no subspaces"),
        ({"gates": "oracle", "prompts": ("w40",)}, "has no skill"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(engine, arguments, message):
    with pytest.raises(ConfigError, match=message):
        s.states_table(subject(engine), **arguments)


def test_the_scree_adds_up(engine):
    table = s.scree_table(subject(engine), n_components=7)
    kinds = {kind: part for kind, part in table.groupby("kind", sort=False)}
    assert list(kinds) == ["base states", "edit", "edit on the axes of the base states"]
    base, edit, control = (part["frac"].to_numpy() for part in kinds.values())
    assert base.sum() == pytest.approx(1)  # 8 prompts span 7 dimensions
    assert edit.sum() == pytest.approx(1)
    assert (np.diff(base) <= 1e-12).all()
    assert (np.diff(edit) <= 1e-12).all()
    assert (edit[4:] < 1e-9).all()  # two subspaces of rank 2
    assert edit[3] > 1e-4
    assert control.sum() < 1
    assert table["cumulative"].iloc[6] == pytest.approx(1)
    assert table["chance"].iloc[0] == 1 / 32
    off = s.scree_table(subject(engine), gates="off")
    assert off["kind"].unique().tolist() == ["base states"]


# The edit in coordinates ----------------------------------------------------------------------


def by_hand(adapter, name, h):
    """R, W h + b and R h of one subspace in float64, from its parameters."""
    subspaces, i = adapter.at(1), adapter.names.index(name)
    with torch.no_grad():
        R = subspaces.basis()[0, i].double().numpy()
        b = subspaces.b[0, i].double().numpy()
        W = None if subspaces.W is None else subspaces.W[0, i].double().numpy()
    return R, b, None if W is None else h @ W.T, h @ R.T


TARGETS = {
    "loreft": lambda Rh, Wh, b: Wh + b,  # noqa: ARG005
    "noreft": lambda Rh, Wh, b: Wh + b,  # noqa: ARG005
    "consreft": lambda Rh, Wh, b: b + 0 * Rh,  # noqa: ARG005
    "direft": lambda Rh, Wh, b: Rh + Wh + b,
    "lobireft": lambda Rh, Wh, b: Rh + b,  # noqa: ARG005
}


@pytest.mark.parametrize("form", TARGETS)
def test_an_open_gate_carries_the_coordinates_to_the_target_of_the_form(engine, form):
    constraint = "none" if form == "noreft" else "joint"
    one = subject(engine, form=form, constraint=constraint, init="random")
    if constraint == "none":
        with torch.no_grad():
            one.adapter.at(1).raw *= 1.5
    table = s.coordinates_table(one, gates="1,1", subspace="skill 1")
    h, changed = reference(one, 1, gates="1,1")
    R, b, Wh, Rh = by_hand(one.adapter, "skill 1", h)
    wanted = {"before": Rh, "after": changed @ R.T, "target": TARGETS[form](Rh, Wh, b)}
    for kind, expected in wanted.items():
        found = table.loc[table["kind"] == kind, ["x", "y"]].to_numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=kind)
    distance = np.linalg.norm(wanted["after"] - wanted["target"], axis=1)
    np.testing.assert_allclose(table["distance"], np.tile(distance, 3), atol=1e-4)
    assert table["start"].min() > 0.05
    if constraint == "joint":
        assert table["distance"].max() < 1e-4
    else:
        assert table["distance"].max() > 0.05  # rows that are not orthonormal promise nothing


def test_a_half_open_gate_goes_half_of_the_way_under_joint(engine):
    joint = s.coordinates_table(subject(engine), gates="0.25,1", subspace="skill 0")
    assert joint["error"].max() < 1e-5
    np.testing.assert_allclose(joint["distance"], 0.75 * joint["start"], rtol=1e-4)
    # Overlapping subspaces write into each other: the equation must fail.
    overlapping = subject(engine, constraint="within")
    with torch.no_grad():
        overlapping.adapter.at(1).raw[0, 1] = overlapping.adapter.at(1).raw[0, 0]
    assert s.coordinates_table(overlapping, gates="0.25,1")["error"].min() > 0.01


def test_a_closed_gate_and_an_unedited_token_stay(engine):
    off = s.coordinates_table(subject(engine), gates="only:skill 1", subspace="skill 0")
    assert off["moved"].max() < 1e-5
    np.testing.assert_allclose(off["distance"], off["start"], rtol=1e-4)
    before = s.coordinates_table(subject(engine), gates="1,1", position="-2")
    assert before["gate"].max() == 0
    assert before["moved"].max() == 0
    assert s.coordinates_table(subject(engine), gates="1,1")["moved"].min() > 0.05


def test_a_subspace_of_rank_one_is_a_line(engine):
    table = s.coordinates_table(subject(engine, rank=1), gates="1,1")
    assert table["y"].isna().all()
    assert table["distance"].max() < 1e-4


def test_untied_first_and_last_tokens_have_their_own_maps(engine):
    one = subject(engine, positions="f1+l1", tied=False)
    for position in ("first", "last"):
        found = s.coordinates_table(one, gates="1,1", position=position)
        assert found["distance"].max() < 1e-4, position
        assert found["start"].min() > 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": 2}, "edits layer 1"),
        ({"position": "mean"}, "one token"),
        ({"subspace": "cooking"}, "no subspace 'cooking'"),
    ],
)
def test_coordinates_that_do_not_exist_are_refused(engine, arguments, message):
    with pytest.raises(ConfigError, match=message):
        s.coordinates_table(subject(engine), **arguments)


def test_energy_is_shared_by_the_open_gates(engine):
    one = subject(engine)
    oracle = s.energy_table(one, gates="oracle")
    gated = oracle[oracle["kind"] == "gated"].set_index(["skill", "subspace"])["share"]
    for skill in NAMES:
        for name in NAMES:
            assert gated[skill, name] == float(skill == name)
    free = oracle[oracle["kind"] == "all gates 1"]
    assert free.groupby("skill")["share"].sum().tolist() == pytest.approx([1, 1])
    h, _ = reference(one, 1)
    energies = []
    for name in NAMES:
        R, b, Wh, Rh = by_hand(one.adapter, name, h)
        energies.append(np.square((Wh + b - Rh) @ R).sum(1))
    shares = energies[0] / np.sum(energies, axis=0)
    own = free[free["skill"].eq(NAMES[0]) & free["subspace"].eq(NAMES[0])]["share"].iloc[0]
    assert own == pytest.approx(shares[::2].mean(), rel=1e-4)
    weighted = s.energy_table(one, gates="1,0.5")
    own = weighted[weighted["kind"].eq("gated") & weighted["subspace"].eq(NAMES[0])]["share"].iloc[
        0
    ]
    expected = energies[0] / (energies[0] + energies[1] / 4)  # gates enter squared
    assert own == pytest.approx(expected[::2].mean(), rel=1e-4)
    unedited = s.energy_table(one, gates="1,1", position="-2")
    assert unedited["share"].isna().all()
    assert (unedited["n"] == 0).all()
    assert s.energy_table(one, gates="off").query("kind == 'gated'")["share"].isna().all()


# Sizes ----------------------------------------------------------------------------------------


def test_sizes_are_the_mean_over_the_prompts_that_have_the_token(engine):
    one = subject(engine)
    table = s.size_table(one, places=5).set_index(["layer", "place"])
    for layer, place in ((0, -1), (1, -1), (2, -1), (1, -2), (2, -4)):
        sizes, states = [], []
        for row in ROWS:
            n = len(row.prompt.split())
            if n < -place:
                continue
            h, changed = (
                engine.trace(a, [row.prompt], layers=(layer,), template="{prompt}")
                .after[layer][0, n + place]
                .double()
                for a in (None, one.adapter)
            )
            sizes.append(float((changed - h).norm() / h.norm()))
            states.append(h.numpy())
        cell: Any = table.loc[(layer, place)]
        assert cell["n"] == len(sizes)
        assert cell["size"] == pytest.approx(np.mean(sizes), abs=1e-5)
        assert cell["highest"] == pytest.approx(max(sizes), abs=1e-5)
        pairs = [np.square(a - b).sum() for i, a in enumerate(states) for b in states[:i]]
        between = np.sqrt(np.mean(pairs) / np.mean(np.square(states).sum(1)))
        assert cell["between"] == pytest.approx(between, rel=1e-3)
    assert table.loc[(0, -1), "size"] == table.loc[(2, -2), "size"] == 0
    assert table.loc[(1, -1), "size"] > 0.05
    assert table["edited_layer"].groupby("layer").first().tolist() == [False, True, False]


def test_a_single_prompt_has_its_tokens_and_no_control(engine):
    table = s.size_table(subject(engine), prompts=("w5 w6 w7",))
    assert table.loc[table["layer"] == 0, "text"].tolist() == ["w5", "w6", "w7"]
    assert table["between"].isna().all()
    assert (table["n"] == 1).all()


# Separation -----------------------------------------------------------------------------------


def test_separation_with_oracle_gates_is_perfect_and_shuffled_labels_are_not(engine):
    rows = tuple(r._replace(prompt=f"{r.prompt} w{40 + i}") for i in range(3) for r in ROWS)
    table = s.separation_table(subject(engine, rows), gates="oracle")
    value = table.set_index(["features", "measure", "kind"])["value"]
    assert value["gates", "silhouette", "true labels"] == 1
    assert value["gates", "probe accuracy", "true labels"] == 1
    assert value["gates", "probe accuracy", "majority class"] == 0.5
    assert value["gates", "silhouette", "shuffled labels"] < 0.3
    assert value["gates", "probe accuracy", "shuffled labels"] < 0.9
    # Alternating skills of random words: nothing in h tells them, the oracle edit does.
    assert value["h'", "silhouette", "true labels"] > value["h", "silhouette", "true labels"]
    assert table["n"].unique().tolist() == [24]
    assert set(table["features"]) == {"gates", "R h", "random h", "h", "h'"}
    sizes = table.groupby("features")["n_features"].first()
    assert (sizes["R h"], sizes["random h"], sizes["h"]) == (4, 4, 32)
    again = s.separation_table(subject(engine, rows), gates="oracle")
    pd.testing.assert_frame_equal(table, again)


def test_the_probe_and_the_silhouette_know_their_extremes():
    from csreft_core.analysis.statistics import separation

    labels = ["a", "b"] * 10
    apart = np.array([[0.0, 0.0], [9.0, 9.0]] * 10) + 1e-3 * np.arange(40).reshape(20, 2)
    units = units_of([Row((label,), f"p{i}", "r", "") for i, label in enumerate(labels)])
    assert separation.silhouette(apart, labels, units).value > 0.99
    probe = separation.probe_accuracy(apart, labels, units)
    assert probe.value == probe.high == 1
    # Wilson's lower end of 20 right out of 20: n / (n + z^2).
    assert probe.low == pytest.approx(20 / (20 + 1.959964**2), abs=1e-6)
    constant = np.ones((20, 2))
    assert separation.silhouette(constant, labels, units).value == 0
    assert separation.probe_accuracy(constant, labels, units).value == 0.5
    assert separation.majority_share(["a", "a", "b"]) == pytest.approx(2 / 3)


def test_skills_that_are_too_few_are_refused(engine):
    with pytest.raises(ConfigError, match="two skills"):
        s.separation_table(subject(engine, ROWS[::2]))
    unlabelled = [row._replace(skills=()) for row in ROWS]
    with pytest.raises(ConfigError, match="two skills"):
        s.separation_table(subject(engine, unlabelled))


# Over training --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    one = open_subject(str(ROOT / "assets/examples/recommended-0"))
    yield one
    one.engine.close()


def test_the_snapshots_are_of_the_prompts_that_the_table_names(shipped):
    table = s.training_table(shipped, basis="base")
    assert table["step"].unique().tolist() == [0, 50, 100, 150, 200, 250]
    last = table[table["step"].eq(250)]
    base, edited = (last[last["kind"].eq(kind)] for kind in ("base", "edited"))
    prompts = base["prompt"].tolist()
    assert len(set(prompts)) == len(prompts) == 48
    trace = shipped.engine.trace(shipped.adapter, prompts, layers=(1,), template=shipped.template)
    h, changed = (t[1][:, -1].double().numpy() for t in (trace.before, trace.after))
    moved = np.linalg.norm(changed - h, axis=1)
    np.testing.assert_allclose(edited["moved"], moved, rtol=0.01)  # snapshots are halves
    # Which prompt is which: the distances between them are those of the base.
    places = base[["x", "y"]].to_numpy()
    axes = p.fit_axes(h, changed, "base", 2)
    np.testing.assert_allclose(places, (h - h.mean(0)) @ axes.T, atol=0.2)
    assert np.abs(places).max() > 20


def test_axes_are_fitted_once_and_the_first_step_has_no_edit(shipped):
    table = s.training_table(shipped, basis="differences")
    base = table[table["kind"].eq("base")].pivot(index="prompt", columns="step", values="x")
    assert np.ptp(base.to_numpy(), axis=1).max() < 1e-6  # the first edited layer's input is fixed
    first = table[table["step"].eq(0)]
    assert (first["moved"] == 0).all()
    assert first["edit_frac"].isna().all()
    share = table.groupby("step")["edit_frac"].first()
    assert 0.4 < share[250] < 1
    assert 0 < share[50] < share[250]
    assert (table["fitted_step"] == 250).all()
    gate = table.groupby("step")["gate"].median()
    assert gate[0] < 0.7 < 0.99 < gate[250]
    three = s.training_table(shipped, basis="subspace:french", n_axes=3)
    assert {"x", "y", "z"} <= set(three)


def test_a_run_without_snapshots_says_so(shipped, engine, tmp_path):
    with pytest.raises(RunError, match="no snapshots"):
        s.training_table(subject(engine))
    folder = shutil.copytree(shipped.run.path, tmp_path / "copy")
    shutil.rmtree(folder / "snapshots")
    with pytest.raises(RunError, match="no snapshots"):
        s.training_table(replace(shipped, run=open_run(folder)))


def test_snapshots_of_other_data_are_refused(shipped):
    few = SkillSet(shipped.skill_set.split("validation")[:40], shipped.skill_set.names)
    with pytest.raises(RunError, match="does not fit"):
        s.training_table(replace(shipped, skill_set=few))


def test_many_snapshots_are_thinned_and_keep_both_ends(shipped, monkeypatch):
    monkeypatch.setattr(s, "MOST_STEPS", 3)
    steps = s.training_table(shipped)["step"].unique().tolist()
    assert steps == [0, 100, 250]


@pytest.mark.parametrize("name", ["paper-0", "loreft-0", "oracle-0", "unsupervised-0"])
def test_every_table_works_on_every_kind_of_run(shipped, name):
    run = open_run(ROOT / f"assets/examples/{name}")
    one = replace(shipped, adapter=load_adapter(run.adapter_path), config=run.config(), run=run)
    for table in s.TABLES:
        options = {} if table == "training" else {"gates": one.trained_gates}
        if table == "separation" and name != "loreft-0":
            continue  # slow, and only constant gates are special
        options |= {"per_skill": 5} if table == "separation" else {}
        assert len(getattr(s, f"{table}_table")(one, **options)), table


def test_gates_per_token_are_those_of_the_token(engine):
    router = RouterConfig(granularity="per_token")
    one = subject(engine, positions="all_prompt", router=router)
    assert isinstance(one.adapter.spec.adapter, AdapterConfig)
    last, earlier = (s.coordinates_table(one, position=q) for q in ("last", "-2"))
    assert not np.allclose(last["gate"], earlier["gate"])
    assert earlier["error"].max() < 1e-5
    assert earlier["moved"].min() > 0
