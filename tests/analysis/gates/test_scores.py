"""Tables of the Router page: controls, scores per setting, thresholds, tokens, an edit."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from csreft_core.analysis.gates import sentences as say
from csreft_core.analysis.gates import tables as g
from csreft_core.analysis.gates.scores import row_scores
from csreft_core.analysis.subject import Subject, open_subject
from csreft_core.config import Provenance, RouterConfig, preset
from csreft_core.errors import AdapterError, ConfigError
from csreft_core.inference.engine import Engine
from csreft_core.inference.scoring import evaluate
from csreft_core.reft.adapter import save_adapter
from csreft_core.runs.all_runs import create_run
from csreft_core.skills.skill_set import Row, SkillSet
from tests.repository import ROOT
from tests.tiny import make_adapter, tiny_base

NAMES = ("skill 0", "skill 1")
ROWS = tuple(
    Row((NAMES[i % 2],), f"w{5 + i} w{9 + 2 * i}", f"w{30 + i}" + " w40" * (i % 3), "test_items")
    for i in range(12)
)


@pytest.fixture
def engine(tiny_llama):
    with_hooks = Engine(tiny_base(tiny_llama))
    yield with_hooks
    with_hooks.close()


def tiny_subject(engine, rows=ROWS, **router):
    provenance = Provenance(
        base_fingerprint=engine.base.fingerprint, template="{prompt}", versions={}
    )
    config = replace(preset("recommended"), provenance=provenance, router=RouterConfig(**router))
    adapter = make_adapter(engine.base, router=config.router)
    if adapter.router is not None:  # A fresh router's gates are all near one half.
        with torch.no_grad():
            adapter.router.fc2.weight *= 20
    return Subject(engine, adapter, config, SkillSet(tuple(rows), NAMES))


@pytest.fixture
def subject(engine):
    return tiny_subject(engine)


def save(run_root, subject, name):
    run = create_run(run_root / name, subject.config, SkillSet(ROWS, NAMES))
    save_adapter(subject.adapter, run.adapter_path)
    return str(run.path)


@pytest.fixture
def first_token(engine, tmp_runs):
    return save(tmp_runs, tiny_subject(engine, input="first_token", hidden="paper"), "paper")


def test_controls_stand_in_the_same_table(subject, first_token):
    table = g.distribution_table(subject, others=(first_token,))
    assert list(table) == ["source", *g.COLUMNS]
    sources = list(dict.fromkeys(table["source"]))
    assert sources == ["learned", "oracle", "uniform", "paper (first token)"]
    assert table["source"].value_counts().tolist() == [24] * 4
    by_source = {s: part["gate"].to_numpy().reshape(12, 2) for s, part in table.groupby("source")}
    prompts = [row.prompt for row in ROWS]
    expected = subject.engine.gates(subject.adapter, prompts, template="{prompt}").double().numpy()
    assert by_source["learned"] == pytest.approx(expected)
    assert by_source["oracle"].tolist() == np.tile(np.eye(2), (6, 1)).tolist()
    assert (by_source["uniform"] == 0.5).all()


def test_rows_without_a_label_have_no_oracle(engine):
    rows = tuple(row._replace(skills=()) for row in ROWS)
    table = g.distribution_table(tiny_subject(engine, rows))
    assert list(dict.fromkeys(table["source"])) == ["learned", "uniform"]
    assert set(table["skill"]) == {"unlabelled"}


def test_a_run_without_a_router_shows_the_gates_it_was_trained_with(engine):
    table = g.distribution_table(tiny_subject(engine, gates="oracle"))
    assert list(dict.fromkeys(table["source"])) == ["oracle", "uniform"]
    with pytest.raises(ConfigError, match="no router"):
        g.sweep_table(tiny_subject(engine, gates="oracle"))


def test_a_control_of_another_base_is_refused(engine, tmp_runs):
    other = tiny_subject(engine, gates="uniform")  # no router: the engine is never asked
    other.adapter.spec = replace(other.adapter.spec, base_fingerprint="f" * 64)
    path = save(tmp_runs, other, "elsewhere")
    with pytest.raises(AdapterError, match="trained on a base"):
        g.distribution_table(tiny_subject(engine), others=(path,))


def test_means_are_those_of_the_distribution(subject, first_token):
    table = g.means_table(subject, others=(first_token,))
    keys = ["source", "skill", "subspace"]
    expected = g.distribution_table(subject, others=(first_token,)).groupby(keys)["gate"].mean()
    found = table.set_index(keys)
    assert found["gate"].to_dict() == pytest.approx(expected.to_dict())
    assert (found["n"] == 6).all()
    assert (found["low"] <= found["gate"] + 1e-12).all()
    assert (found["gate"] <= found["high"] + 1e-12).all()
    learned = found.loc["learned"]
    assert (learned["low"] < learned["high"]).all()


def test_patterns_count_every_prompt_once(subject):
    table = g.patterns_table(subject, threshold=0.4)
    assert table.groupby("source")["n"].sum().tolist() == [12] * 3
    assert table.groupby(["source", "skill"])["share"].sum().to_numpy() == pytest.approx(1.0)
    gates = g.distribution_table(subject).query("source == 'learned'")["gate"].to_numpy()
    opened = gates.reshape(12, 2) > 0.4
    both = [row.skills[0] for row, o in zip(ROWS, opened, strict=True) if o.all()]
    found = table.query("source == 'learned' and pattern == 'skill 0+skill 1'")
    assert found.set_index("skill")["n"].to_dict() == dict(pd.Series(both).value_counts())
    assert set(table.query("source == 'uniform'")["pattern"]) == {"skill 0+skill 1"}
    strict = g.patterns_table(subject).query("source == 'uniform'")
    assert set(strict["pattern"]) == {"none"}


def test_coactivation_is_counted_pair_by_pair(subject):
    table = g.coactivation_table(subject, threshold=0.45).query("source == 'learned'")
    gates = g.distribution_table(subject).query("source == 'learned'")["gate"].to_numpy()
    opened = (gates.reshape(12, 2) > 0.45).tolist()
    for row in table.itertuples():
        a, b = NAMES.index(row.subspace), NAMES.index(row.other)
        assert row.both_open == pytest.approx(sum(o[a] and o[b] for o in opened) / 12)
    assert 0 < table["both_open"].max() <= 1


def test_settings_are_what_evaluate_says(subject, first_token):
    table = g.settings_table(subject, others=(first_token,)).set_index("source")
    assert list(table.index) == [
        "learned",
        "hard",
        "oracle",
        "uniform",
        "paper (first token)",
        "off",
    ]
    encoded = subject.encoded(ROWS)
    for setting in ("learned", "hard", "oracle", "uniform", "off"):
        expected = evaluate(
            subject.engine.attachment, subject.adapter, encoded, gates=setting, decode=False
        )["mean"]
        row = table.loc[setting]
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert row["exact_match"] == pytest.approx(expected["exact_match"])
        assert row["gap"] == pytest.approx(row["loss"] - table.loc["learned", "loss"], abs=1e-9)
    assert table["loss"].nunique() == 6
    assert [*table.loc["learned", ["gap", "gap_low", "gap_high"]]] == [0, 0, 0]
    # Paired: the gap varies less over prompts than the loss.
    off = table.loc["off"]
    assert off["loss_low"] < off["loss"] < off["loss_high"]
    assert off["gap_low"] < off["gap"] < off["gap_high"]


def test_the_sweep_ends_at_all_open_and_at_none(subject):
    table = g.sweep_table(subject, per_skill=None, steps=3)
    assert table["gates"].tolist() == ["soft", "hard", "hard", "hard"]
    assert table["threshold"].tolist()[1:] == [0.0, 0.5, 1.0]
    assert table["n_open"].tolist()[1::2] == [2.0, 0.0]
    for row, setting in zip(table.itertuples(), ("learned", "1,1", "hard", "off"), strict=True):
        scores = row_scores(subject, ROWS, setting)
        by_skill = scores.groupby("skill")[["nll", "n_tokens"]].sum()
        loss = (by_skill["nll"] / by_skill["n_tokens"]).mean()
        assert row.loss == pytest.approx(loss, rel=1e-5), setting
        assert row.gap == pytest.approx(row.loss - table["loss"].iloc[0], abs=1e-9)
    assert table["loss"].nunique() == 4


def test_the_sweep_has_its_control(subject, first_token, engine, tmp_runs):
    without = save(tmp_runs, tiny_subject(engine, gates="oracle"), "no-router")
    table = g.sweep_table(subject, steps=2, others=(first_token, without))
    assert list(dict.fromkeys(table["source"])) == ["learned", "paper (first token)"]


def test_tokens_are_those_of_a_router_per_token_only(engine):
    subject = tiny_subject(engine, granularity="per_token")
    prompts = ("w5 w6 w5", "w7 w8")
    table = g.tokens_table(subject, prompts=prompts)
    assert len(table) == (3 + 2) * 2
    assert table["token"].tolist()[::2] == ["w5", "w6", "w5", "w7", "w8"]
    last = table.groupby("prompt", sort=False).tail(2)["gate"].to_numpy().reshape(2, 2)
    assert last == pytest.approx(
        engine.gates(subject.adapter, prompts, template="{prompt}").numpy(), abs=1e-6
    )
    # At each token, the gates of the prompt up to there.
    begin = engine.gates(subject.adapter, ["w5", "w5 w6"], template="{prompt}").numpy().ravel()
    assert table["gate"].to_numpy()[:4] == pytest.approx(begin, abs=1e-6)
    per_prompt = g.tokens_table(tiny_subject(engine), prompts=prompts)
    assert per_prompt.empty
    assert "once for the whole prompt" in say.sentence_tokens(per_prompt)


def test_the_difference_is_that_of_two_prompts(subject):
    table = g.difference_table(subject, prompts=("w5 w9", "w5 w60"))
    gates = subject.engine.gates(subject.adapter, ["w5 w9", "w5 w60"], template="{prompt}").double()
    assert table["change"].to_numpy() == pytest.approx((gates[1] - gates[0]).numpy(), abs=1e-6)
    assert table["change"].abs().min() > 1e-4
    same = g.difference_table(subject, prompts=("w5 w9", "w5 w9"))
    assert (same["change"] == 0).all()
    assert "No gate moved" in say.sentence_difference(same)
    with pytest.raises(ConfigError, match="two prompts"):
        g.difference_table(subject, prompts=("w5",))


def test_the_difference_without_a_router(engine):
    subject = tiny_subject(engine, gates="oracle")
    known = g.difference_table(subject, prompts=(ROWS[0].prompt, ROWS[1].prompt))
    assert known["change"].tolist() == [-1.0, 1.0]
    unknown = g.difference_table(subject, prompts=(ROWS[0].prompt, "w3"))
    assert unknown["change"].tolist() == [0.0, 0.0]


@pytest.fixture(scope="module")
def paper():
    found = open_subject(str(ROOT / "assets/examples/paper-0"))
    yield found
    found.engine.close()


OTHER = ("assets/examples/recommended-0",)


def test_the_papers_router_ignores_the_prompt_and_the_page_says_so(paper):
    table = g.distribution_table(paper, per_skill=5, others=OTHER)
    ranges = g.gate_range(table[table["source"] == "learned"])["range"]
    assert (ranges <= 1e-6).all()
    text = say.sentence_distribution(table)
    assert text.startswith("The gates ignore the prompt: over 20 prompts")
    assert "recommended-0 (mean of the prompt) depend on it" in text
    means = g.means_table(paper, per_skill=5, others=OTHER)
    assert "Every skill gets the same mean gates" in say.sentence_means(means)


def test_the_papers_open_gates_tell_nothing_about_the_skill(paper):
    table = g.metrics_table(paper, per_skill=5, others=OTHER)
    nmi = table[table["metric"] == "nmi"].set_index("source")["value"]
    assert nmi["learned"] == 0.0
    assert nmi["recommended-0 (mean of the prompt)"] == pytest.approx(1.0)
    assert nmi["oracle"] == pytest.approx(1.0)
    assert nmi["uniform"] == 0.0
    patterns = g.patterns_table(paper, per_skill=5)
    assert "open gates tell nothing about the skill" in say.sentence_patterns(patterns)


def estimates(**changed):
    values = {"loss": 0.5, "exact_match": 0.9, "gap": 0.0, "gap_low": 0.0, "gap_high": 0.0, "n": 9}
    return values | changed


@pytest.mark.parametrize(
    ("gap", "words"),
    [
        ((-0.2, -0.3, -0.1), "the router is the bottleneck"),
        ((0.2, 0.1, 0.3), "the subspaces do not stand for one skill each"),
        ((0.005, 0.004, 0.006), "the router is not the bottleneck"),
        ((-0.2, -0.5, 0.1), "the router is not the bottleneck"),
    ],
)
def test_the_sentence_on_the_bottleneck(gap, words):
    gaps = dict(zip(("gap", "gap_low", "gap_high"), gap, strict=True))
    sources = {"learned": estimates(), "oracle": estimates(**gaps), "off": estimates()}
    table = pd.DataFrame([{"source": s} | row for s, row in sources.items()])
    assert words in say.sentence_settings(table)


@pytest.mark.parametrize(
    ("nmi", "probe", "words"),
    [
        ((0.0, 0.13), (0.87, 0.7), "they carry the skill, and the threshold hides it"),
        ((1.0, 1.0), (1.0, 0.9), "from the soft gates with 1.000"),
        ((0.0, 0.1), (0.25, 0.2), "from the soft gates with 0.250"),
    ],
)
def test_the_probe_says_what_the_threshold_hides(nmi, probe, words):
    values = {
        "nmi": (nmi[0], 0.0, nmi[1]),
        "matched_accuracy": (0.25, 0.2, 0.3),
        "probe_accuracy": (*probe, 1.0),
    }
    table = pd.DataFrame(
        [
            {
                "source": "learned",
                "metric": metric,
                "value": value,
                "low": low,
                "high": high,
                "n": 9,
                "over": "items and wordings",
            }
            for metric, (value, low, high) in values.items()
        ]
    )
    said = say.sentence_information(table)
    assert words in said
    assert "from 9 prompts; 95 % intervals over items and wordings" in said
    assert ("carry the skill" in said) == (probe[0] == 0.87)


def test_sentences_of_patterns_gates_and_pairs():
    patterns = pd.DataFrame(
        [("learned", "a", "a", 3), ("learned", "a", "a+b", 1), ("learned", "b", "b", 4)],
        columns=["source", "skill", "pattern", "n"],
    )
    assert say.sentence_patterns(patterns).startswith("7 of 8 prompts open the gate of their own")
    pairs = pd.DataFrame(
        [
            ("learned", "a", "a", 1.0, 8),
            ("learned", "a", "b", 0.125, 8),
            ("learned", "b", "a", 0.125, 8),
            ("learned", "b", "b", 0.125, 8),
        ],
        columns=["source", "subspace", "other", "both_open", "n"],
    )
    assert say.sentence_coactivation(pairs) == (
        "Most often open together: a and b, in 12.5% of 8 prompts."
    )
    never = pairs.assign(both_open=[0.5, 0.0, 0.0, 0.5])
    assert "No two gates are ever open together, over 8" in say.sentence_coactivation(never)


@pytest.mark.parametrize(
    "sentence",
    [
        say.sentence_distribution,
        say.sentence_means,
        say.sentence_patterns,
        say.sentence_information,
        say.sentence_profile,
        say.sentence_coactivation,
        say.sentence_settings,
        say.sentence_sweep,
        say.sentence_difference,
        say.sentence_tokens,
    ],
)
def test_sentences_of_empty_tables(sentence):
    assert len(sentence(pd.DataFrame({"source": []}))) > 10
