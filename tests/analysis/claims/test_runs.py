"""What is measured for each claim: planted differences in, the right condition out."""

import re
from dataclasses import replace
from functools import cache

import pandas as pd
import pytest

from csreft_core.analysis.claims import rules
from csreft_core.analysis.claims import tables as claims
from csreft_core.analysis.claims.comparison import ACROSS, PAIRS, comparison_measurements
from csreft_core.analysis.claims.conditions import TELLS
from csreft_core.analysis.claims.runs import composition_gain, over_seeds, routing
from csreft_core.analysis.claims.sentences import sentence_condition, sentence_verdicts
from csreft_core.analysis.interference.composition import pattern_table
from csreft_core.analysis.methods.tables import MethodTables, read_tables
from csreft_core.analysis.statistics.separation import Estimate
from csreft_core.analysis.subject import open_subject
from csreft_core.comparison.presets import COMPARISONS
from csreft_core.shipped.examples import EXAMPLES
from tests.architecture.measured_texts import conditions as shipped_conditions
from tests.compared import INDEX, JOINT_LOST, SEEDS, made_up_comparison, made_up_tables


@cache
def shipped_runs() -> pd.DataFrame:
    """The shipped runs are measured once for all tests."""
    return shipped_conditions().set_index("condition")


def compared(**changes) -> dict[str, dict]:
    rows = comparison_measurements([made_up_tables(**changes)])
    return {row["condition"]: row for row in rows}


def test_a_comparison_measures_the_conditions_whose_methods_it_has():
    found = compared()
    harms = {f"C1.{name}" for name in ("harm", "loreft", "lora")} | {"C2.olora"}
    parts = ("", "_joint", "_exact")
    assert set(found) == {f"{name}{part}" for name in harms for part in parts} | {
        "C3.loreft",
        "C7.kept",
        "C7.kept_exact",
        "C7.loreft",
        "C7.loreft_exact",
    }
    for name, control in (("C1.loreft", "loreft"), ("C1.lora", "lora"), ("C2.olora", "olora")):
        # The planted noise is that of the seed, so it cancels in the paired difference.
        assert found[name]["value"] == pytest.approx(INDEX["csreft"] - INDEX[control])
        assert found[name]["high"] - found[name]["low"] == pytest.approx(0, abs=1e-12)
        assert found[name]["control_value"] == pytest.approx(INDEX[control] - 0.002)
        assert (found[name]["seeds"], found[name]["n"]) == (len(SEEDS), 40)
        lost = JOINT_LOST["csreft"] - JOINT_LOST[control]
        assert found[f"{name}_exact"]["value"] == pytest.approx(lost)
        assert found[f"{name}_joint"]["value"] == pytest.approx(2 * lost)
    # Training on a skill lowers its own loss by 1, which is no part of the harm.
    assert found["C1.harm"]["value"] == pytest.approx(INDEX["csreft"] - 0.002)
    assert found["C1.harm_exact"]["value"] == pytest.approx(JOINT_LOST["csreft"] - 0.002)
    assert pd.isna(found["C1.harm"]["control_value"])
    assert found["C3.loreft"]["value"] == 0
    assert found["C3.loreft"]["n"] == 60
    assert found["C7.kept"]["value"] == pytest.approx(0.012)
    assert found["C7.kept"]["low"] < 0.012 < found["C7.kept"]["high"]
    assert found["C7.loreft"]["value"] == pytest.approx(0.01 - 0.60)
    assert found["C7.loreft_exact"]["value"] == pytest.approx((0.01 - 0.60) / 4)


def renamed(tables: MethodTables, old: str, new: str) -> MethodTables:
    parts = {
        name: getattr(tables, name).replace({"method": {old: new}})
        for name in ("cells", "scores", "interference", "sequential", "conflict")
    }
    return replace(tables, **parts)


def test_the_advantage_over_olora_is_held_against_the_same_positions():
    """CS-ReFT on all prompt tokens stands in another comparison than O-LoRA."""
    main = made_up_tables()
    positions = replace(renamed(made_up_tables(), "csreft", "all_prompt"), name="positions")
    rows = {row["condition"]: row for row in comparison_measurements([main, positions])}
    assert rows["C2.positions"]["value"] == pytest.approx(INDEX["csreft"] - INDEX["olora"])
    assert rows["C2.positions_exact"]["value"] == pytest.approx(
        JOINT_LOST["csreft"] - JOINT_LOST["olora"]
    )
    assert rows["C2.positions"]["source"] == "comparison positions, comparison made-up"
    # Of other work, such as other steps, or of another base, nothing is taken.
    record, names = main.base_fingerprint, {n for n in rows if n.startswith("C2.positions")}
    old = f"{'e' * 16}{'0' * 48}"
    for alike, changes in (
        (False, {"work": ("other work",)}),
        (False, {"base_fingerprint": record.replace("a", "b")}),
        (False, {"base_fingerprint": "0" * 64}),
        (True, {"base_fingerprint": old}),  # the same base, as an earlier version recorded it
    ):
        found = comparison_measurements([main, replace(positions, **changes)])
        assert {row["condition"] for row in found} & names == (names if alike else set())


def test_few_tokens_are_enough_only_if_no_answer_is_lost():
    """0.02 nats are within the bound of the loss, while one answer in 100 is lost."""
    plain = renamed(renamed(made_up_tables(), "csreft", "all_prompt"), "lora", "l1")
    scores = plain.scores.set_index("method")
    scores.loc["l1", "loss"] = (scores.loc["all_prompt", "loss"] + 0.02).to_numpy()
    for less, finding, verdict in (
        (0.01, rules.OPPOSITE, rules.FAILS),
        (0.004, rules.SHOWN, rules.HOLDS),
    ):
        exact = scores.loc["all_prompt", "exact_match"].to_numpy()
        scores.loc["l1", "exact_match"] = exact - less
        measured = comparison_measurements([replace(plain, scores=scores.reset_index())])
        table = rules.judge_conditions(pd.DataFrame(measured)).set_index("condition")
        assert table.loc["R2.all", "finding"] == rules.SHOWN
        assert table.loc["R2.all_exact", "finding"] == finding
        verdicts = rules.judge_claims(table.reset_index()).set_index("claim")["verdict"]
        assert verdicts["R2"] == verdict


def test_the_planted_comparison_gives_the_planted_verdicts():
    conditions = rules.judge_conditions(pd.DataFrame(list(compared().values())))
    verdicts = rules.judge_claims(conditions).set_index("claim")["verdict"]
    assert verdicts["C1"] == rules.FAILS  # less than the others from one start alone
    assert verdicts["C2"] == rules.FAILS  # O-LoRA costs fewer answers from the joint start
    assert verdicts["C3"] == rules.UNDECIDED  # no method does two skills
    assert verdicts["C7"] == rules.HOLDS


def test_a_failed_cell_takes_its_seed_out_of_the_differences():
    found = compared(failed=(("loreft", 1), ("csreft", 4)))
    assert found["C1.loreft"]["seeds"] == 3
    assert found["C1.lora"]["seeds"] == 4
    assert found["C7.kept"]["seeds"] == 4
    nothing = compared(failed=tuple(("csreft", seed) for seed in SEEDS))
    assert nothing == {}


def test_the_first_comparison_that_has_both_methods_counts():
    first = made_up_tables(failed=tuple(("lora", seed) for seed in SEEDS))
    second = made_up_tables()
    assert first.name == second.name
    rows = {row["condition"]: row for row in comparison_measurements([first, second])}
    assert set(rows) == set(compared())
    assert comparison_measurements([]) == []


@pytest.mark.parametrize("ranks", [{"csreft": 44, "loreft": 62}, {"csreft": 8}, {}])
def test_a_loreft_of_another_total_rank_is_no_control(ranks):
    other, equal = replace(made_up_tables(), total_rank=ranks), replace(made_up_tables(), name="b")
    alone = {row["condition"] for row in comparison_measurements([other])}
    assert alone == {name for name in compared() if ".loreft" not in name}
    both = {row["condition"]: row for row in comparison_measurements([other, equal])}
    assert both["C1.loreft"]["source"] == "comparison b"
    assert both["C1.lora"]["source"] == "comparison made-up"


def test_the_total_rank_is_that_of_all_subspaces(tmp_path):
    made_up_comparison(tmp_path / "made")
    assert read_tables(str(tmp_path / "made")).total_rank == {"csreft": 4 * 2, "loreft": 8}


def test_every_pair_is_in_a_preset_of_compare():
    for condition, pair in PAIRS.items():
        preset, command = claims.preset_of(condition), claims.command_of(condition)
        if condition in ACROSS:
            own, control = pair
            assert own in COMPARISONS[preset]
            assert control in COMPARISONS["main"]
            assert f"--preset {preset} --methods {own}" in command
            assert f"--preset main --methods {control}" in command
            continue
        assert set(pair) <= set(COMPARISONS[preset])
        assert f"--preset {preset} --methods {','.join(dict.fromkeys(pair))}" in command


def test_the_command_of_a_comparison_keeps_its_settings():
    recorded = (
        "python -m csreft_core compare --out 'my runs/main' --budget 16000 --methods csreft,lora "
        "--jobs 2 --set train.threads=1"
    )
    command = claims.command_of("C7.loreft", recorded)
    made, _, judged = command.partition(" && ")
    assert made == (
        "python -m csreft_core compare --budget 16000 --jobs 2 --set train.threads=1 "
        "--methods csreft,loreft --out redone/C7.loreft"
    )
    assert judged == (
        "python -m csreft_core judge claims --table conditions "
        "--set 'comparisons=[\"redone/C7.loreft\"]'"
    )
    assert "--preset positions --methods l1,all_prompt --out" in claims.command_of("R2.all")
    assert claims.command_of("C7.loreft_exact", recorded) == command
    both = claims.command_of("C2.positions_joint", recorded + " --preset positions", recorded)
    assert both.count("--budget 16000") == 2
    assert "--preset positions --methods all_prompt --out redone/C2.positions-own && " in both
    assert "=1 --methods olora --out redone/C2.positions-control && " in both
    assert """'comparisons=["redone/C2.positions-own", "redone/C2.positions-control"]'""" in both


def test_every_condition_that_can_be_measured_says_how():
    for condition in rules.CONDITIONS:
        assert claims.command_of(condition.name).startswith("python -m csreft_core ")


def test_no_two_commands_make_different_things_in_one_folder():
    commands = {claims.command_of(condition.name) for condition in rules.CONDITIONS}
    folders = [found[1] for c in commands if (found := re.search(r"--out (\S+)", c))]
    assert len(folders) == len(set(folders)) > 10


def test_every_run_that_is_measured_is_one_that_the_command_makes():
    for condition, names in claims.FROM_RUNS.items():
        assert set(names) <= set(EXAMPLES)
        assert f"build-examples {' '.join(names)} --out" in claims.command_of(condition)


def test_c5_by_hand():
    found = {row["condition"]: row for row in claims.arithmetic()}
    total = 4 * (2 * 4096 + 1) + 2048 * 4097 + 4 * 2049
    assert found["C5.share"]["value"] == pytest.approx(100 * total / 6_738_415_616)
    assert found["C5.lora"]["value"] == pytest.approx(8_388_608 / total)
    assert found["C5.router"]["value"] == pytest.approx(8_398_852 / total)
    assert shipped_runs().loc["C5.share", "finding"] == rules.OPPOSITE


def test_the_edit_lies_in_its_subspace_and_reaches_its_target():
    found = shipped_runs()
    assert found.loc["R1.inside", "value"] == pytest.approx(1, abs=1e-5)
    assert found.loc["R1.inside", "control_value"] == 8 / 128
    assert found.loc["R1.target", "value"] < 1e-5
    assert found.loc["R1.inside", "n"] == 120
    assert found.loc["R1.inside", "finding"] == rules.SHOWN


def test_a_negative_factor_harms_where_a_positive_one_helps():
    found = shipped_runs()
    assert found.loc["R4.with", "low"] > 0
    assert found.loc["R4.against", "high"] < 0


def test_gates_without_labels_do_not_tell_the_skill_and_that_is_what_the_table_says():
    row = shipped_runs().loc["C4.nmi"]
    assert 0 < row["value"] < row["high"] < TELLS
    assert row["finding"] == rules.OPPOSITE
    assert row["control_value"] == pytest.approx(0, abs=1e-6)
    assert (row["seeds"], row["over"], row["n"]) == (3, "seeds, items and wordings", 1440)


def test_the_router_that_was_taught_the_labels_is_the_positive_control():
    taught = open_subject(f"{claims.EXAMPLES}/recommended-0")
    row = routing([taught], None)
    assert row["low"] > TELLS
    assert row["seeds"] == 1


def test_an_interval_over_seeds_is_never_narrower_than_those_over_prompts():
    alike = [Estimate(0.0, 0.0, 0.12)] * 3
    row = over_seeds("C4.nmi", alike, 1440, "items and wordings", control=0.0)
    assert (row["value"], row["low"], row["high"], row["seeds"]) == (0, 0, pytest.approx(0.12), 3)
    assert row["over"] == "seeds, items and wordings"
    apart = [Estimate(x, x - 0.01, x + 0.01) for x in (0.1, 0.5, 0.9)]
    row = over_seeds("C4.nmi", apart, 9, "prompts", control=0.0)
    assert row["high"] - row["low"] == pytest.approx(2 * 4.302653 * 0.4 / 3**0.5, abs=1e-5)
    one = over_seeds("C4.nmi", apart[:1], 9, "prompts", control=0.0)
    assert (one["low"], one["high"]) == pytest.approx((0.09, 0.11))
    assert one["over"] == "prompts"


def test_the_composition_gain_is_the_difference_of_pattern_losses():
    subject = open_subject(f"{claims.EXAMPLES}/recommended-0")
    few = replace(subject.skill_set, rows=tuple(subject.split("test_two_skills")[::6]))
    subject = replace(subject, skill_set=few)
    row = composition_gain([subject])
    encoded = subject.encoded(few.rows)
    table = pattern_table(subject.engine.attachment, subject.adapter, encoded)
    gains = []
    for skill, part in table.groupby("skill"):
        i, j = (subject.adapter.names.index(name) for name in str(skill).split("+"))
        loss = {}
        for pattern, rows in part.groupby("pattern"):
            opened = {place for place, gate in enumerate(str(pattern)) if gate == "1"}
            loss[frozenset(opened)] = rows["nll"].sum() / rows["n_tokens"].sum()
        gains.append(min(loss[frozenset({i})], loss[frozenset({j})]) - loss[frozenset({i, j})])
    assert row["value"] == pytest.approx(sum(gains) / len(gains))
    assert row["seeds"] == 1
    assert pd.isna(row["low"])


def test_every_measured_row_says_what_a_sceptic_asks():
    table = shipped_runs()
    measured = table[table["over"] != ""]
    assert len(measured) >= 8
    assert (measured["source"] != "").all()
    assert (measured["command"] != "").all()
    exact = measured["over"] == "arithmetic"
    texts = measured["source"].str.startswith("texts of")
    compared = measured["source"].str.startswith("comparison")
    assert (measured.loc[~exact & ~texts & ~compared, "n"] >= 120).all()
    assert (measured.loc[texts, "seeds"] >= rules.FEWEST_SEEDS).all()
    assert (measured.loc[~exact, "seeds"] >= 1).all()
    assert measured[["low", "high"]].notna().all(axis=None)


def test_missing_runs_leave_their_conditions_unmeasured(tmp_path):
    nothing = str(tmp_path / "nothing.json")
    table = claims.conditions_table(comparisons=(), examples=str(tmp_path), memorised=nothing)
    measured = table.loc[table["over"] != "", "condition"].tolist()
    assert measured == ["C5.share", "C5.lora", "C5.router"]


def test_the_sentences_are_those_of_the_table():
    conditions = rules.judge_conditions(pd.DataFrame(list(compared().values())))
    verdicts = rules.judge_claims(conditions)
    text = sentence_verdicts(verdicts)
    assert "1 is “holds here” (C7)" in text
    assert "1 is “not testable here” (C6)" in text
    row = conditions.set_index("condition", drop=False).loc["C1.lora"]
    said = sentence_condition(row)
    assert "-0.4" in said
    assert (
        "upper end below 0 nats a token: shown (n = 40 prompts, 5 seeds, interval over seeds)"
        in said
    )
    missing = conditions.set_index("condition", drop=False).loc["R2.all"]
    assert "not measured" in sentence_condition(missing)
