"""Losses under gate settings, pairs, regret, overlap and single-skill runs, against small cases."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import pearsonr

from csreft_core.analysis import losses
from csreft_core.analysis.interference import pairs as gate_pairs
from csreft_core.analysis.interference import sentences as s
from csreft_core.analysis.interference import tables as t
from csreft_core.analysis.interference.index import interference_index
from csreft_core.analysis.statistics.intervals import units_of
from csreft_core.analysis.subject import Subject
from csreft_core.config import ASSETS, Provenance, RouterConfig, preset
from csreft_core.errors import ConfigError, RunError, SkillSetError
from csreft_core.inference.engine import Engine
from csreft_core.inference.scoring import evaluate
from csreft_core.reft.adapter import load_adapter
from csreft_core.runs.all_runs import Run, create_run
from csreft_core.runs.single_skill import (
    find_only_runs,
    only_config,
    only_name,
    only_rows,
    trained_skills,
)
from csreft_core.skills.skill_set import Row, SkillSet
from tests.planted import planted_subject
from tests.tiny import make_adapter, tiny_base

NAMES = ("skill 0", "skill 1", "skill 2")
EXAMPLES = ASSETS / "examples"


@pytest.fixture
def engine(tiny_llama):
    tiny_llama.get_input_embeddings().weight.data *= 20
    with_hooks = Engine(tiny_base(tiny_llama))
    yield with_hooks
    with_hooks.close()


@pytest.fixture(scope="module")
def pocket():
    with_hooks = Engine.load(preset("recommended").base)
    yield with_hooks
    with_hooks.close()


def tiny_rows(n=4, names=NAMES):
    return tuple(
        Row((name,), f"w{5 + i} w{20 + j} w{30 + j}", f"w{40 + i}" + " w7" * (j % 2), "test_items")
        for i, name in enumerate(names)
        for j in range(n)
    )


def subject(engine, rows=None, *, gates="learned", adapter=None, **settings):
    provenance = Provenance(base_fingerprint="0" * 64, template="{prompt}", versions={})
    config = preset("recommended")
    config = replace(config, provenance=provenance, router=replace(config.router, gates=gates))
    router = RouterConfig(gates=gates, **settings.pop("router", {}))
    adapter = adapter or make_adapter(engine.base, k=3, router=router, **settings)
    return Subject(engine, adapter, config, SkillSet(rows or tiny_rows(), NAMES))


def loss_of(subject, gates):
    """Loss of each skill by the same routine as the command `evaluate`."""
    scores = evaluate(
        subject.engine.attachment,
        subject.adapter,
        subject.encoded(subject.split("test")),
        gates=gates,
        decode=False,
    )
    return {name: skill["loss"] for name, skill in scores["skills"].items()}


# settings -----------------------------------------------------------------------------------


def test_settings_are_the_losses_of_evaluate_and_off_is_exactly_zero(engine):
    of = subject(engine)
    found = t.settings_table(of)
    assert list(found.columns) == list(t.SETTING_COLUMNS)
    settings = ["off", *(f"only:{name}" for name in NAMES), "learned", "oracle", "uniform"]
    assert list(dict.fromkeys(found["setting"])) == settings
    base = loss_of(of, "off")
    for setting, part in found.groupby("setting"):
        loss = loss_of(of, setting)
        assert dict(zip(part["skill"], part["loss"], strict=True)) == pytest.approx(loss)
        change = {name: loss[name] - base[name] for name in NAMES}
        assert dict(zip(part["skill"], part["change"], strict=True)) == pytest.approx(
            change, abs=1e-5
        )
    off = found[found["setting"] == "off"]
    assert (off[["change", "low", "high"]] == 0).all(axis=None)
    assert (found.loc[found["setting"] == "learned", "change"].abs() > 1e-3).all()
    assert (found["n"] == 4).all()
    inside = (found["low"] <= found["change"]) & (found["change"] <= found["high"])
    assert inside.all()
    few = t.settings_table(of, per_skill=2)
    assert (few["n"] == 2).all()


def test_settings_that_do_not_apply_are_absent(engine):
    without_router = subject(engine, gates="oracle")
    assert without_router.adapter.router is None
    found = set(t.settings_table(without_router)["setting"])
    assert "learned" not in found
    assert "oracle" in found
    unlabelled = tuple(row._replace(skills=()) for row in tiny_rows())
    assert "oracle" not in set(t.settings_table(subject(engine, unlabelled))["setting"])
    single = make_adapter(engine.base, k=1, router=RouterConfig(gates="uniform"))
    one = subject(engine, adapter=single, gates="uniform")
    assert list(dict.fromkeys(t.settings_table(one)["setting"])) == ["off", "only:skill 0"]


def test_two_skills_of_a_prompt_are_one_group(engine):
    rows = (*tiny_rows(2), Row(("skill 0", "skill 2"), "w9 w9", "w8", "test_items"))
    found = t.settings_table(subject(engine, rows))
    assert "skill 0+skill 2" in set(found["skill"])
    pairs = t.pairs_table(subject(engine, rows))
    both = pairs[pairs["skill"] == "skill 0+skill 2"].set_index("changed")["own"]
    assert both.tolist() == [True, False, True]


@pytest.fixture
def shipped(pocket):
    """The shipped run without router, with three prompts of each skill."""
    run = Run(EXAMPLES / "oracle-0")
    lines = (json.loads(x) for x in (run.path / "skills.jsonl").read_text("utf-8").splitlines())
    tests = [x for x in lines if x["split"] == "test_items"]
    rows = [Row((x["skill"],), x["prompt"], x["response"], x["split"]) for x in tests[::40]]
    adapter = load_adapter(run.adapter_path)
    return Subject(pocket, adapter, run.config(), SkillSet(tuple(rows), adapter.names), run)


def test_another_run_stands_beside_it_as_control(shipped):
    of, control = shipped, str(EXAMPLES / "loreft-0")
    found = t.settings_table(of, others=(control,))
    beside = found[found["kind"] == "control"]
    assert beside["setting"].unique().tolist() == ["run:loreft-0"]
    other = replace(of, adapter=load_adapter(EXAMPLES / "loreft-0" / "adapter.safetensors"))
    loss = loss_of(other, "learned")
    for row in beside.itertuples():
        assert row.loss == pytest.approx(loss[row.skill], rel=1e-5)
    assert "learned" not in set(found["setting"])
    text = s.sentence_settings(found)
    assert "The control loreft-0 has" in text
    shown = t.examples_table(of, skill="french", gates="run:loreft-0", others=(control,))
    assert (shown["answer"] == shown["response"]).sum() >= 2
    with pytest.raises(ConfigError, match="no such run"):
        t.examples_table(of, skill="french", gates="run:nobody", others=(control,))
    pooled = t.overlap_table(of, others=(str(EXAMPLES / "unsupervised-0"), control))
    assert pooled.groupby("run").size().to_dict() == {"oracle-0": 12, "unsupervised-0": 12}
    with pytest.raises(RunError, match="no such run"):
        t.settings_table(of, others=("nowhere",))


# intervals ----------------------------------------------------------------------------------


def test_the_estimate_is_a_ratio_of_sums_and_the_interval_is_paired():
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 4, size=200).astype(float)
    values = tokens * rng.normal(0.5, 1.0, size=200)
    rows = [Row(("a",), f"p{i}", "r", "") for i in range(200)]
    three = np.stack([values, 0 * values, values])
    estimate, low, high = losses.per_token(three, tokens, units_of(rows))
    assert estimate[0] == pytest.approx(values.sum() / tokens.sum())
    assert (estimate[1], low[1], high[1]) == (0, 0, 0)
    assert (low[2], high[2]) == (low[0], high[0])
    # Standard error of a ratio by the delta method: an independent estimate of the width.
    error = np.sqrt(((values - estimate[0] * tokens) ** 2).sum()) / tokens.sum()
    assert high[0] - low[0] == pytest.approx(2 * 1.96 * error, rel=0.1)
    one = losses.per_token(values[None, :1], tokens[:1], units_of(rows[:1]))
    assert one[0][0] == values[0] / tokens[0]
    assert np.isnan(one[1][0])


# pairs --------------------------------------------------------------------------------------


def vector(**open_gates):
    return [open_gates.get(name.replace(" ", "_"), 0.0) for name in NAMES]


@pytest.mark.fast
def test_i_on_and_s_are_differences_of_evaluated_losses(engine):
    of = subject(engine)
    base = loss_of(of, "off")
    alone = {i: loss_of(of, f"only:{i}") for i in NAMES}
    together = {
        (i, j): loss_of(of, [float(name in (i, j)) for name in NAMES]) for i in NAMES for j in NAMES
    }
    i_on = t.pairs_table(of)
    for row in i_on.itertuples():
        i, j = row.changed, row.skill
        own = i == j
        before = base[j] if own else alone[j][j]
        after = alone[j][j] if own else together[i, j][j]
        assert row.own == own
        assert row.change == pytest.approx(after - before, abs=1e-5)
        assert row.reference == pytest.approx(before, rel=1e-5)
        assert row.relative == pytest.approx(row.change / before, rel=1e-4)
    transfer = t.pairs_table(of, measure="S")
    for row in transfer.itertuples():
        assert row.change == pytest.approx(
            alone[row.changed][row.skill] - base[row.skill], abs=1e-5
        )
    assert i_on["change"].abs().min() > 1e-4


def test_ablation_closes_one_of_the_trained_gates(engine):
    row = Row(("skill 1",), "w5 w6", "w7", "test_items")
    of = subject(engine, (row,))
    gates = engine.gates(of.adapter, ["w5 w6"], template="{prompt}")[0].tolist()
    found = t.pairs_table(of, measure="A")
    whole = loss_of(of, gates)["skill 1"]
    for i, change in enumerate(found["change"]):
        closed = [0.0 if j == i else gate for j, gate in enumerate(gates)]
        assert change == pytest.approx(loss_of(of, closed)["skill 1"] - whole, abs=1e-5)
    assert found["change"].abs().max() > 1e-3
    assert found["low"].isna().all()  # one prompt has no interval
    # Where the labels gave the gates, only the own one is open; closing another changes nothing.
    labelled = t.pairs_table(subject(engine, gates="oracle"), measure="A")
    assert (labelled.loc[~labelled["own"], "change"] == 0).all()
    assert (labelled.loc[labelled["own"], "change"] != 0).all()


@pytest.mark.parametrize("gates", ["oracle", "uniform"])
def test_a_router_that_was_taught_beside_given_gates_has_not_trained_the_edits(engine, gates):
    of = subject(engine, gates=gates, router={"supervision": 1.0})
    assert of.adapter.router is not None
    assert of.gates_as_trained(("skill 1",)) == gates
    regret = t.regret_table(of)
    assert set(regret.loc[regret["kind"] == "run", "setting"]) == {gates}
    assert "learned" in set(regret.loc[regret["kind"] == "control", "setting"])
    given = of.gates(of.split("test"), gates)
    start = gate_pairs.start_gates(of, of.encoded(of.split("test")), "A")
    assert torch.equal(start, given)
    assert not torch.equal(start, of.gates(of.split("test"), "learned"))


def test_what_has_no_pairs_says_so(engine):
    unnamed = tuple(row._replace(skills=("something else",)) for row in tiny_rows())
    nothing = t.pairs_table(subject(engine, unnamed))
    assert nothing.empty
    assert "needs a subspace that is named after" in s.sentence_pairs(nothing)
    with pytest.raises(ConfigError, match="unknown measure"):
        t.pairs_table(subject(engine), measure="B")
    per_token = subject(engine, router={"granularity": "per_token"})
    with pytest.raises(ConfigError, match="every token"):
        t.pairs_table(per_token, measure="A")
    assert len(t.pairs_table(per_token, measure="S")) == 9


def pairs(changes, measure="I_on"):
    """A table of two skills: rows i, columns j."""
    rows = [
        (measure, i, j, i == j, change, change - 0.01, change + 0.01, 2.0, change / 2, 5)
        for i, line in zip("ab", changes, strict=True)
        for j, change in zip("ab", line, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(t.PAIR_COLUMNS[:-1])).assign(over="prompts")


@pytest.mark.fast
def test_the_index_is_mean_harm_over_mean_own_effect():
    assert interference_index(pairs([[-2.0, 1.0], [0.0, -2.0]])) == 0.25
    assert interference_index(pairs([[-2.0, -1.0], [-3.0, -2.0]])) == 0.0  # help is no harm
    # In the ablation a gate is taken away: what it hurt gets better.
    assert interference_index(pairs([[2.0, -1.0], [3.0, 2.0]], "A")) == 0.25
    assert np.isnan(interference_index(pairs([[0.0, 1.0], [1.0, 0.0]])))
    foreign = pairs([[-2.0, 1.0], [0.0, -2.0]]).assign(own=False)
    assert np.isnan(interference_index(foreign))
    assert "no interference index" in s.sentence_index(foreign)


def test_sentence_of_pairs_names_the_worst_certain_pair():
    text = s.sentence_pairs(pairs([[-2.0, 0.3], [0.005, -2.0]]))
    assert text.startswith("Opening a beside the own gate hurts b most: +0.300 [+0.290, +0.310]")
    assert "1 of 2 pairs" in text
    assert "Interference index 0.076" in text
    none = s.sentence_pairs(pairs([[-2.0, 0.005], [-0.1, -2.0]]))
    assert none.startswith("Opening no other gate raises the loss")


# the planted pair ---------------------------------------------------------------------------


def test_the_planted_pair_interferes_and_no_other(pocket):
    planted = planted_subject(pocket)
    found = t.pairs_table(planted.subject)
    others = found[~found["own"]].copy()
    inside = [
        {i, j} == set(planted.pair) for i, j in zip(others["changed"], others["skill"], strict=True)
    ]
    assert sum(inside) == 2
    assert (others.loc[inside, "low"] > 0.1).all()
    rest = others.loc[[not x for x in inside]]
    assert (rest[["low", "high"]].abs() < 0.01).all(axis=None)
    text = s.sentence_pairs(found)
    assert all(name in text.split(";")[0] for name in planted.pair)
    assert "2 of 12 pairs" in text
    scatter = t.overlap_table(planted.subject)
    r, low, high = s.correlation(scatter)
    assert r > 0.99
    assert low <= r <= high
    assert "Pearson r = +1.00" in s.sentence_overlap(scatter)


# regret, bottleneck, overlap -----------------------------------------------------------------


def test_regret_is_measured_from_the_best_of_all_patterns(engine):
    row = Row(("skill 1",), "w5 w6", "w7 w8", "test_items")
    of = subject(engine, (row,))
    every = [
        loss_of(of, [float(a), float(b), float(c)])["skill 1"]
        for a in (0, 1)
        for b in (0, 1)
        for c in (0, 1)
    ]
    found = t.regret_table(of).set_index("setting")
    assert list(found.index) == ["learned", "off", "oracle", "uniform"]
    assert found["kind"].tolist() == ["run", "control", "control", "control"]
    assert found["best"].tolist() == pytest.approx([min(every)] * 4, rel=1e-5)
    for setting, value in found["regret"].items():
        assert value == pytest.approx(loss_of(of, setting)["skill 1"] - min(every), abs=1e-5)
    assert found.loc["oracle", "regret"] >= -1e-6  # it is one of the patterns
    assert found.loc["off", "regret"] > 1e-3
    assert "Controls: off" in s.sentence_regret(found.reset_index())


def settings_of(learned, oracle):
    rows = [
        ("a", setting, "run", loss, loss - 3, loss - 3.1, loss - 2.9, 1.0, 5)
        for setting, loss in (("off", 3.0), ("learned", learned), ("oracle", oracle))
    ]
    return pd.DataFrame(rows, columns=list(t.SETTING_COLUMNS[:-1])).assign(over="prompts")


@pytest.mark.parametrize(
    ("learned", "oracle", "words"),
    [
        (2.0, 0.1, "Routing costs 1.9000, so what is left is mostly due to the router."),
        (0.6, 0.5, "Routing costs 0.1000, so what is left is mostly due to the edit."),
        (0.5, 0.5, "Routing costs nothing (+0.0000)"),
        (0.1, 0.9, "0.8000 better than one open gate for each skill"),
    ],
)
def test_sentence_of_the_bottleneck(learned, oracle, words):
    assert words in s.sentence_bottleneck(settings_of(learned, oracle))


def test_without_a_router_the_bottleneck_cannot_be_said():
    table = settings_of(1.0, 0.5)
    text = s.sentence_bottleneck(table[table["setting"] != "learned"])
    assert text == "This run has no learned gates, so the two cannot be compared."


def test_overlap_of_random_subspaces_is_chance_and_of_joint_ones_zero():
    free = make_adapter(d_model=128, k=6, rank=8, constraint="within")
    found = gate_pairs.overlaps(free)
    np.testing.assert_allclose(np.diag(found), 1)
    np.testing.assert_allclose(found, found.T)
    off = found[~np.eye(6, dtype=bool)]
    assert off.mean() == pytest.approx(8 / 128, rel=0.2)  # 15 pairs
    joint = gate_pairs.overlaps(make_adapter(d_model=128, k=6, rank=8))
    assert joint[~np.eye(6, dtype=bool)].max() < 1e-10


def scatter(overlap, change):
    return pd.DataFrame(
        {
            "run": "r",
            "constraint": "within",
            "changed": "a",
            "skill": "b",
            "overlap": overlap,
            "change": change,
            "low": np.array(change) - 0.1,
            "high": np.array(change) + 0.1,
            "n": 5,
        }
    )


def test_correlation_is_pearsons_with_its_interval_and_few_pairs_are_warned_about():
    x = np.linspace(0, 1, 12)
    y = x + np.array([0.2, -0.2] * 6)
    r, low, high = s.correlation(scatter(x, y))
    reference = pearsonr(x, y)
    z, width = np.arctanh(reference.statistic), 1.959964 / np.sqrt(12 - 3)
    assert r == pytest.approx(reference.statistic)
    assert (low, high) == pytest.approx((np.tanh(z - width), np.tanh(z + width)), abs=1e-6)
    assert "fewer than" not in s.sentence_overlap(scatter(x, y))
    assert "fewer than 10: do not conclude" in s.sentence_overlap(scatter(x[:9], y[:9]))
    assert np.isnan(s.correlation(scatter(x[:2], y[:2]))[0])
    three = s.correlation(scatter(x[:3], y[:3]))
    assert not np.isnan(three[0])
    assert "Pearson r" in s.sentence_overlap(scatter(x[:3], y[:3]))


def test_under_joint_the_scatter_cannot_answer(engine):
    found = t.overlap_table(subject(engine))
    assert len(found) == 6
    assert found["overlap"].max() < 1e-10
    text = s.sentence_overlap(found)
    assert text.startswith("The scatter cannot answer: under the constraint “joint”")
    assert "overlap of all 6 pairs is 0" in text
    spread = t.overlap_table(subject(engine, constraint="within"))
    assert spread["overlap"].max() > 1e-3


# examples -----------------------------------------------------------------------------------


def test_examples_are_those_that_are_hurt_and_helped_most(engine):
    of = subject(engine, tiny_rows(9))
    found = t.examples_table(of, skill="skill 1", gates="only:skill 0", most=4)
    assert list(found.columns) == list(t.EXAMPLE_COLUMNS)
    part = [row for row in of.split("test") if row.skills == ("skill 1",)]
    changes = {}
    for row in part:
        alone = replace(of, skill_set=SkillSet((row,), NAMES))
        after, before = (loss_of(alone, g)["skill 1"] for g in ("only:skill 0", "off"))
        changes[row.prompt] = after - before
    ranked = sorted(changes, key=changes.__getitem__, reverse=True)
    assert found["prompt"].tolist() == [*ranked[:2], *ranked[-2:]]
    for row in found.itertuples():
        assert row.change == pytest.approx(changes[row.prompt], abs=1e-5)
        assert row.change == row.loss_after - row.loss_before
        answer = engine.generate(
            of.adapter, row.prompt, "only:skill 0", template="{prompt}", max_new_tokens=32
        ).text
        assert answer.startswith(row.answer)
    with pytest.raises(ConfigError, match="no prompt of skill 'nobody'"):
        t.examples_table(of, skill="nobody")
    assert "of the 4 shown prompts of skill 1" in s.sentence_examples(found)


# single-skill runs --------------------------------------------------------------------------


def skill_set(names=("b", "a")):
    splits = ("train", "train", "validation", "test_items")
    rows = [Row((n,), f"{n} {i}", "x", split) for n in names for i, split in enumerate(splits)]
    rows.append(Row(tuple(names), "both", "x", "test_two_skills"))
    return SkillSet(tuple(rows), tuple(names))


def test_only_one_skill_is_trained_and_the_skills_keep_their_order(tmp_path):
    whole = skill_set()
    part = only_rows(whole, "a")
    assert [row.prompt for row in part.rows if row.split == "train"] == ["a 0", "a 1"]
    kept = [row for row in whole.rows if row.split != "train"]
    assert sorted(r.prompt for r in part.rows if r.split != "train") == sorted(
        r.prompt for r in kept
    )
    run = create_run(tmp_path / "r", preset("recommended"), part)
    assert run.skill_set().names == ("b", "a")  # as read from the file: k and the names stay
    assert trained_skills(run.skill_set()) == ("a",)


def test_a_skill_that_cannot_be_trained_or_measured_is_refused():
    whole = skill_set()
    with pytest.raises(SkillSetError, match="no train row has the skill 'c'"):
        only_rows(whole, "c")
    trained_only = SkillSet(
        tuple(r for r in whole.rows if r.skills != ("b",) or r.split == "train"), whole.names
    )
    with pytest.raises(SkillSetError, match="'b' has train rows only"):
        only_rows(trained_only, "a")


def evaluated(run: Run, *losses_by_skill):
    for step, found in enumerate(losses_by_skill):
        skills = {name: {"loss": x, "exact_match": 0.0, "n": 7} for name, x in found.items()}
        run.append_metric({"kind": "eval", "step": step, "split": "validation", "skills": skills})
    return run


def test_single_skill_runs_are_found_by_name_settings_and_rows(tmp_path):
    config, whole = preset("recommended"), skill_set()
    first = create_run(
        tmp_path / only_name("mine", "a"), only_config(config), only_rows(whole, "a")
    )
    found = find_only_runs(config, whole.names, "mine", tmp_path)
    assert found == {"a": first}
    # What the trainer adds to the config does not matter; what the user sets does.
    provenance = Provenance(base_fingerprint="0" * 64, template="{prompt}", versions={})
    threads = replace(config.train, threads=2)
    first.write_config(replace(config, provenance=provenance, train=threads))
    assert find_only_runs(config, whole.names, "mine", tmp_path) == {"a": first}
    other = replace(config, train=replace(config.train, seed=5))
    assert find_only_runs(other, whole.names, "mine", tmp_path) == {}
    assert find_only_runs(config, whole.names, "yours", tmp_path) == {}
    # The right name and settings, but it learned another skill.
    create_run(tmp_path / only_name("mine", "b"), config, only_rows(whole, "a"))
    assert list(find_only_runs(config, whole.names, "mine", tmp_path)) == ["a"]


def test_single_skill_table_is_last_minus_first_evaluation(engine, tmp_path):
    of = subject(engine)
    whole = skill_set()
    own = create_run(tmp_path / "x-only-a", only_config(of.config), only_rows(whole, "a"))
    evaluated(own, {"a": 4.0, "b": 2.0}, {"a": 9.0, "b": 9.0}, {"a": 1.0, "b": 2.5})
    other = replace(
        only_config(of.config), adapter=replace(of.config.adapter, rank=8, n_subspaces=1)
    )
    control = create_run(tmp_path / "y-only-b", other, only_rows(whole, "b"))
    evaluated(control, {"a": 4.0, "b": 2.0}, {"a": 5.0, "b": 0.5})
    found = t.single_skill_table(of, others=(str(own.path), str(control.path)))
    columns = ["kind", "changed", "skill", "own", "change", "relative", "n"]
    assert found[columns].values.tolist() == [
        ["run", "a", "a", True, -3.0, -0.75, 7],
        ["run", "a", "b", False, 0.5, 0.25, 7],
        ["control", "b", "a", False, 1.0, 0.25, 7],
        ["control", "b", "b", True, -1.5, -0.75, 7],
    ]
    assert interference_index(found[found["kind"] == "run"]) == pytest.approx(0.5 / 3)
    text = s.sentence_single_skill(found)
    assert "This run's settings (1 trained skill): training on a alone hurts b most (+0.500" in text
    assert "Shared control (1 trained skill): training on b alone hurts a most (+1.000" in text
    assert t.single_skill_table(of).empty


def test_a_run_that_is_not_done_or_learns_more_is_refused(engine, tmp_path):
    of, whole = subject(engine), skill_set()
    early = create_run(tmp_path / "early", of.config, only_rows(whole, "a"))
    evaluated(early, {"a": 4.0, "b": 2.0})
    with pytest.raises(RunError, match="not evaluated twice"):
        t.single_skill_table(of, others=(str(early.path),))
    both = create_run(tmp_path / "both", of.config, whole)
    with pytest.raises(RunError, match="learns 2 skills"):
        t.single_skill_table(of, others=(str(both.path),))


# sentences ----------------------------------------------------------------------------------


def test_sentence_of_settings_says_what_the_table_says(engine):
    table = settings_of(1.0, 0.5)
    text = s.sentence_settings(table)
    assert text.startswith(
        "Learned gates: the adapter lowers the loss by 2.000 nats a token on the mean over 1 skills"
    )
    hurt = settings_of(4.0, 0.5)
    assert "raises the loss by 1.000" in s.sentence_settings(hurt)
    assert "it raises the loss of a" in s.sentence_settings(hurt)
    of = subject(engine)
    found = t.settings_table(of)
    alone = found[found["setting"].str.startswith("only:")]
    foreign = alone[alone["setting"].str.removeprefix("only:") != alone["skill"]]
    assert f"{foreign['change'].max():+.3f}" in s.sentence_settings(found)


@pytest.mark.parametrize(
    ("sentence", "columns"),
    [
        ("settings", t.SETTING_COLUMNS),
        ("examples", t.EXAMPLE_COLUMNS),
        ("pairs", t.PAIR_COLUMNS),
        ("regret", t.REGRET_COLUMNS),
        ("overlap", t.OVERLAP_COLUMNS),
        ("single_skill", t.SINGLE_COLUMNS),
        ("bottleneck", t.SETTING_COLUMNS),
    ],
)
def test_sentences_of_empty_tables(sentence, columns):
    nothing = pd.DataFrame(columns=list(columns))
    assert getattr(s, f"sentence_{sentence}")(nothing).endswith(".")


def test_every_table_of_the_view_has_its_function():
    assert all(callable(getattr(t, f"{name}_table")) for name in t.TABLES)
    assert t.TABLES[0] == "settings"
