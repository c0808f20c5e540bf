"""Tables, sentences and warnings from metrics records, on numbers that a reader can redo."""

import pandas as pd
import pytest

from csreft_core.analysis import training as t

pytestmark = pytest.mark.fast


def step(step, a=1.0, b=3.0, **more):
    record = {
        "kind": "step",
        "step": step,
        "loss": (a + b) / 2,
        "loss_by_skill": {"a": a, "b": b},
        "gates_by_skill": {"a": {"a": 0.8, "b": 0.2}, "b": {"a": 0.3, "b": 0.7}},
        "gate_entropy": 0.5,
        "orthonormality_error": 2e-7,
        "overlap": 0.25,
        "grad_norm": 2.0,
        "lr": 0.01,
        "router_lr": 0.02,
        "tokens_per_second": 100.0,
        "time_left_s": 9.0,
        "elapsed_s": 1.0,
    }
    return record | more


def evaluation(step, a=1.0, b=2.0, right=0.5, gates=((0.8, 0.2), (0.3, 0.7))):
    names = ("a", "b")
    return {
        "kind": "eval",
        "step": step,
        "split": "validation",
        "skills": {
            "a": {"loss": a, "exact_match": right, "n": 10},
            "b": {"loss": b, "exact_match": 1.0, "n": 30},
        },
        "mean": {"loss": (a + b) / 2, "exact_match": (right + 1) / 2},
        "gates_by_skill": {
            skill: dict(zip(names, row, strict=True))
            for skill, row in zip(names, gates, strict=True)
        },
    }


RUN = [evaluation(0, 4.0, 6.0, 0.0), step(1), step(2, 0.5, 1.5), evaluation(2)]


def test_step_table_has_the_step_records_in_order():
    table = t.step_table(RUN)
    assert list(table.columns) == list(t.STEP_COLUMNS)
    assert table["step"].tolist() == [1, 2]
    assert table["loss"].tolist() == [2.0, 1.0]
    assert table["constraint_error"].isna().all()  # older records lack it
    assert t.step_table([step(1, constraint_error=0.5)])["constraint_error"].tolist() == [0.5]


def test_loss_table_joins_training_and_validation():
    table = t.loss_table(RUN)
    assert len(table) == 2 * 2 + 2 * 2
    chosen = table[(table["skill"] == "b") & (table["split"] == "validation")]
    assert chosen[["step", "loss"]].values.tolist() == [[0, 6.0], [2, 2.0]]
    chosen = table[(table["skill"] == "a") & (table["split"] == "train")]
    assert chosen[["step", "loss"]].values.tolist() == [[1, 1.0], [2, 0.5]]


@pytest.mark.parametrize(("split", "steps"), [("validation", [0, 2]), ("train", [1, 2])])
def test_gate_curve_table_takes_the_records_of_its_split(split, steps):
    table = t.gate_curve_table(RUN, split)
    assert sorted(set(table["step"])) == steps
    row = table[(table["step"] == 2) & (table["skill"] == "b") & (table["subspace"] == "a")]
    assert row["gate"].tolist() == [0.3]


def test_scores_and_their_means():
    assert len(t.eval_table(RUN)) == 4
    assert t.last_scores(RUN)["step"].unique().tolist() == [2]
    mean = t.mean_curve(RUN)
    assert mean["loss"].tolist() == [5.0, 1.5]
    assert mean["exact_match"].tolist() == [0.5, 0.75]


@pytest.mark.parametrize(
    "table",
    [t.step_table, t.loss_table, t.gate_curve_table, t.eval_table, t.last_scores, t.mean_curve],
)
def test_no_records_give_an_empty_table_with_its_columns(table):
    assert table([]).empty
    assert list(table([]).columns) == list(table(RUN).columns)


@pytest.mark.parametrize(
    "sentence",
    [
        t.sentence_loss,
        t.sentence_gates,
        t.sentence_entropy,
        t.sentence_constraint,
        t.sentence_exact_match,
    ],
)
def test_sentences_say_when_there_is_nothing_yet(sentence):
    assert "yet" in sentence([])
    assert "yet" not in sentence(RUN)


def test_sentences_carry_the_numbers():
    assert t.sentence_loss(RUN) == (
        "From step 0 to 2 the mean validation loss went from 5.000 to 1.500 nats a token; "
        "b is highest with 2.000."
    )
    assert t.sentence_loss(RUN[:1]) == "At step 0 the mean validation loss is 5.000 nats a token."
    assert "2 of 2 skills" in t.sentence_gates(RUN)
    assert "up to 0.50" in t.sentence_gates(RUN)  # 0.8 - 0.3 and 0.7 - 0.2
    assert "0.500 nats" in t.sentence_entropy(RUN)
    assert "2.0e-07" in t.sentence_constraint(RUN)
    assert "0.25" in t.sentence_constraint(RUN)
    assert t.sentence_exact_match(RUN) == (
        "75.0% of the answers are right on the mean over 2 skills (validation, 40 prompts); "
        "a is lowest with 50.0%."
    )


def test_gates_that_are_the_same_for_all_skills_are_called_so():
    same = [evaluation(2, gates=((0.4, 0.6), (0.4, 0.6)))]
    assert "do not tell the skills apart" in t.sentence_gates(same)
    swapped = [evaluation(2, gates=((0.2, 0.8), (0.7, 0.3)))]
    assert "0 of 2 skills" in t.sentence_gates(swapped)


def test_one_subspace_has_nothing_to_tell_apart():
    record = evaluation(2)
    record["gates_by_skill"] = {"a": {"subspace 1": 1.0}, "b": {"subspace 1": 1.0}}
    assert "One subspace" in t.sentence_gates([record])


def test_a_healthy_run_has_no_alert():
    assert t.alerts(RUN) == []


@pytest.mark.parametrize("change", [{"loss": float("nan")}, {"grad_norm": float("inf")}])
def test_values_that_are_not_finite_raise_an_alert(change):
    found = t.alerts([step(1), step(7, **change)])
    assert ["not finite at step 7" in alert.text for alert in found] == [True]


def test_a_plateau_raises_an_alert_only_while_answers_are_wrong():
    flat = [evaluation(i, right=0.2) for i in range(0, 60, 10)]
    assert "not fallen since step 30" in t.alerts(flat)[0].text
    falling = [evaluation(i, a=6 - i / 10, right=0.2) for i in range(0, 60, 10)]
    assert t.alerts(falling) == []
    assert t.alerts([evaluation(i, right=1.0) for i in range(0, 60, 10)]) == []


def test_a_loss_that_rises_again_raises_an_alert():
    # Means 4, 1, 3: two of the three nats that were gained are lost.
    risen = [evaluation(0, 4, 4), evaluation(1, 1, 1), evaluation(2, 3, 3)]
    assert ["from 1.000 to 3.000" in alert.text for alert in t.alerts(risen)] == [True]
    assert t.alerts([evaluation(0, 4, 4), evaluation(1, 1, 1), evaluation(2, 1.2, 1.2)]) == []


def test_collapsed_gates_raise_an_alert_only_where_a_router_decides():
    same = [evaluation(i, a=6 - i, gates=((0.5, 0.5), (0.5, 0.5))) for i in range(3)]
    assert "same for all skills" in t.alerts(same)[0].text
    assert t.alerts(same, learned_gates=False) == []
    assert t.alerts([evaluation(i, a=6 - i) for i in range(3)]) == []


def test_tables_are_numbers():
    table = t.step_table(RUN)
    assert all(pd.api.types.is_numeric_dtype(table[column]) for column in table)
