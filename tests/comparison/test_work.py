"""`compare`: what a cell measures, what a kill leaves, what the folder refuses."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stderr
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from csreft_core.analysis.methods import comparison as tables
from csreft_core.analysis.subject import open_subject
from csreft_core.attachment.attach import attach
from csreft_core.base.fingerprint import old_rule
from csreft_core.base.load import Base, load_base
from csreft_core.base.text.chat_templates import resolve_template
from csreft_core.cli import compare, main
from csreft_core.comparison.folder import (
    Comparison,
    Variant,
    begin,
    list_comparisons,
    open_comparison,
)
from csreft_core.comparison.measures import gradient_conflict
from csreft_core.comparison.presets import COMPARISONS, chosen_variants
from csreft_core.comparison.work import work
from csreft_core.config import BaseConfig, Config
from csreft_core.errors import AdapterError, ConfigError, RunError
from csreft_core.inference.scoring import encode_rows, evaluate
from csreft_core.methods.budget import match_budget
from csreft_core.methods.build import build_method, load_method
from csreft_core.methods.presets import METHODS
from csreft_core.runs.all_runs import open_run
from csreft_core.runs.single_skill import first_and_last
from csreft_core.skills.skill_set import read_skills
from tests import started, tiny_runs

METHOD_LABELS = ("csreft", "bitfit", "lora_per_skill")
CLOCK = ["train_s", "tokens_per_s"]
TABLES = ("scores", "interference", "sequential", "conflict")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    tiny_runs.save_base(folder / "base")
    tiny_runs.write_rows(folder / "skills.jsonl", tiny_runs.rows())
    return folder


def settings(made: Path, **changes: object) -> list[str]:
    few = {"train__lr": 0.02, "train__steps": 6, "train__checkpoint_every": 6, **changes}
    return tiny_runs.settings(made / "base", made / "skills.jsonl", **few)


def command(made: Path, out: Path, *more: str) -> list[str]:
    return [
        "compare",
        "--out",
        str(out),
        "--methods",
        ",".join(METHOD_LABELS),
        "--seeds",
        "3",
        "--single-steps",
        "2",
        "--sequential-steps",
        "2",
        "--per-skill",
        "4",
        "--json",
        *settings(made),
        *more,
    ]


@pytest.fixture(scope="module")
def whole(made: Path) -> Comparison:
    """A comparison without interruption."""
    assert main(command(made, made / "whole")) == 0
    return open_comparison(made / "whole")


@pytest.fixture(scope="module")
def base(made: Path) -> Base:
    return load_base(BaseConfig(path=str(made / "base")))


def result_of(comparison: Comparison, method: str) -> dict[str, Any]:
    result = comparison.result(method, 3)
    assert result is not None
    return result


def test_every_cell_is_finished_or_says_why_not(whole):
    table = tables.cells(whole)
    assert table[["method", "state"]].to_numpy().tolist() == [
        ["csreft", "finished"],
        ["bitfit", "failed"],
        ["lora_per_skill", "finished"],
    ]
    failed = table.set_index("method").loc["bitfit"]
    assert "has none" in failed["message"]
    assert failed[["total", "train_s", "harm", "joint_harm_exact"]].isna().all()
    done = table[table["state"] == "finished"]
    assert done.drop(columns=["subspaces"]).notna().all().all()
    assert (done[["train_s", "peak_bytes", "tokens_per_s", "total"]] > 0).all().all()
    assert (done["share"] == 100 * done["total"] / done["base_parameters"]).all()


def test_the_scores_are_those_of_evaluate(whole, base):
    for method in ("csreft", "lora_per_skill"):
        run = open_run(whole.cell_path(method, 3))
        trained = load_method(run.adapter_path, base)
        template = resolve_template("auto", base.tokenizer)
        rows = encode_rows(run.skill_set().split("test_two_skills"), base, template, 64)
        with attach(base) as attachment, trained.applied(attachment.current_pass):
            found = evaluate(attachment, trained, rows)["skills"]["red+blue"]
        table = tables.scores(whole)
        row = table[(table["method"] == method) & (table["split"] == "test_two_skills")].iloc[0]
        assert row[["loss", "exact_match", "n"]].to_dict() == found
    n = table.groupby(["method", "split", "skill"])["n"].first()
    assert n["csreft", "test_items", "red"] == 4  # --per-skill


@pytest.mark.parametrize(("start", "folder"), [("untrained", "single"), ("joint", "joint")])
def test_interference_is_that_of_the_runs_on_one_skill(whole, start, folder):
    """The runs are those that the Interference page makes: same data, same numbers."""
    table = tables.interference(whole)
    table = table[(table["method"] == "csreft") & (table["start"] == start)]
    for place, skill in enumerate(tiny_runs.SKILLS):
        run = open_run(whole.cell_path("csreft", 3) / folder / str(place))
        assert {row.skills for row in run.skill_set().split("train")} == {(skill,)}
        rows = table[table["trained"] == skill].set_index("evaluated")
        for ends in first_and_last(run):
            row = rows.loc[ends.skill]
            (loss, loss_after), (exact, exact_after) = ends.loss, ends.exact_match
            assert (row["before"], row["change"]) == (loss, loss_after - loss)
            assert (row["exact_before"], row["exact_change"]) == (exact, exact_after - exact)
            assert row["n"] == ends.n
    # Whatever is trained, it starts at one place.
    assert (table.groupby("evaluated")["before"].nunique() == 1).all()


def test_the_two_starts_are_the_base_and_the_end_of_the_joint_training(whole, base):
    cell, template = whole.cell_path("csreft", 3), "Q: {prompt}\nA:"
    run = open_run(cell)
    rows = encode_rows(run.skill_set().split("validation"), base, template, 64)
    method = load_method(run.adapter_path, base)
    with attach(base) as attachment:
        alone = evaluate(attachment, None, rows, decode=False)["skills"]
        with method.applied(attachment.current_pass):
            trained = evaluate(attachment, method, rows, decode=False)["skills"]
    table = tables.interference(whole)
    for start, expected in (("untrained", alone), ("joint", trained)):
        found = table[(table["method"] == "csreft") & (table["start"] == start)]
        for skill, score in expected.items():
            row = found[found["evaluated"] == skill].iloc[0]
            assert row["before"] == pytest.approx(score["loss"], rel=1e-5)  # other batches
            assert row["exact_before"] == score["exact_match"]
    assert alone["red"]["loss"] > trained["red"]["loss"]


def test_given_gates_on_free_subspaces_harm_nothing_and_learned_ones_do(made, whole, tmp_path):
    """What a skill alone reaches cannot harm another: exactly 0, from both starts."""
    out = tmp_path / "apart"
    argv = command(made, out, "--preset", "constraint", "--set", "router.gates=oracle")
    argv[argv.index("--methods") + 1] = "none"
    assert main(argv) == 0
    harms = ["harm", "harm_exact", "joint_harm", "joint_harm_exact"]
    assert (tables.cells(open_comparison(out))[harms] == 0).all().all()
    for comparison, reaches in ((open_comparison(out), False), (whole, True)):
        table = tables.interference(comparison)
        others = table[table["trained"] != table["evaluated"]]
        assert set(others["start"]) == {"untrained", "joint"}
        assert (others["change"] != 0).all() == reaches


@pytest.fixture
def old(whole: Comparison, tmp_path: Path) -> Comparison:
    """The folder that a version without the joint start left, shipped without its runs."""
    found = begin(tmp_path / "old", whole.plan())
    for method in METHOD_LABELS:
        result = result_of(whole, method)
        if result["state"] == "finished":
            known = ("trained", "evaluated", "change", "before", "n")
            result["interference"] = [
                {name: row[name] for name in known}
                for row in result["interference"]
                if row["start"] == "untrained"
            ]
        found.write_result(method, 3, result)
    return found


def test_a_finished_cell_gets_what_an_older_version_did_not_measure(whole, old, base):
    told = []
    assert tables.cells(old)[["joint_harm", "harm_exact"]].isna().all().all()
    work(old, base, lambda *what: told.append(what))
    for method in ("csreft", "lora_per_skill"):
        assert result_of(old, method) == result_of(whole, method)  # clock and all
    assert [what for what in told if what[0] == "csreft"] == [
        ("csreft", 3, "running"),
        ("csreft", 3, "finished"),
    ]
    told.clear()
    work(old, base, lambda *what: told.append(what))
    assert {method for method, _, _ in told} == {"bitfit"}  # which fails, and is tried again


def test_what_was_not_trained_the_same_way_is_not_mixed(old, base):
    known = result_of(old, "csreft")
    known["scores"][0]["loss"] *= 1.05
    old.write_result("csreft", 3, known)
    work(old, base, lambda *_: None)
    found = result_of(old, "csreft")
    assert "trained again, the loss on" in found["message"]
    assert found | {"message": ""} == known


def test_skills_one_after_another_start_where_the_last_ended(whole):
    cell = whole.cell_path("csreft", 3) / "sequence"
    first, second = (open_run(cell / str(stage)).metrics() for stage in (0, 1))
    ends, starts = ([r for r in one if r["kind"] == "eval"] for one in (first, second))
    assert starts[0]["skills"] == ends[-1]["skills"]
    assert starts[-1]["skills"] != starts[0]["skills"]
    table = tables.sequential(whole)
    assert table[["stage", "trained"]].drop_duplicates().to_numpy().tolist() == [
        [0, "red"],
        [1, "blue"],
    ]


def test_the_conflict_is_taken_half_way_and_the_run_goes_on_to_the_same_end(whole, base, tmp_path):
    run = open_run(whole.cell_path("csreft", 3))
    plain = settings(whole.path.parent, train__seed=3)
    assert main(["train", *plain, "--out", str(tmp_path / "plain"), "--json"]) == 0
    assert (tmp_path / "plain" / "adapter.safetensors").read_bytes() == (
        run.adapter_path.read_bytes()
    )
    (pair,) = result_of(whole, "csreft")["conflict"]
    assert (pair["first"], pair["second"]) == ("red", "blue")
    assert -1 <= pair["cosine"] <= 1
    # At the end of the training the gradients are others.
    trained = load_method(run.adapter_path, base)
    rows = encode_rows(run.skill_set().split("train"), base, "Q: {prompt}\nA:", 64)
    with attach(base) as attachment, trained.applied(attachment.current_pass):
        (end,) = gradient_conflict(attachment, trained, run.config(), rows)
    assert end["cosine"] != pair["cosine"]


def test_gradients_of_separate_parts_do_not_conflict_and_of_one_skill_agree(made, base):
    """With oracle gates each skill has its own free rows; the same rows twice have cosine 1."""
    assignments = ["router.gates=oracle", "adapter.constraint=none", "router.supervision=0"]
    config = replace(chosen_variants("main", ["csreft"], assignments)["csreft"].config)
    skill_set = read_skills(str(made / "skills.jsonl"))
    method = build_method(config, base, skill_set.names)
    rows = encode_rows(skill_set.split("train"), base, "Q: {prompt}\nA:", 64)
    with attach(base) as attachment:
        (apart,) = gradient_conflict(attachment, method, config, rows)
        assert apart["cosine"] == 0
        shared = METHODS["loreft"].config
        red = tuple(row._replace(skills=("red",)) for row in rows.rows[:8:2])
        blue = tuple(row._replace(skills=("blue",)) for row in rows.rows[:8:2])
        twice = replace(rows, rows=red + blue, examples=rows.examples[:8:2] * 2)
        one = build_method(shared, base, skill_set.names)
        (same,) = gradient_conflict(attachment, one, shared, twice)
        assert same["cosine"] == pytest.approx(1, abs=1e-6)


def test_a_run_of_another_method_says_so_where_subspaces_are_needed(whole, capsys):
    path = whole.cell_path("lora_per_skill", 3)
    with pytest.raises(AdapterError, match="the page Methods"):
        open_subject(str(path))
    assert main(["evaluate", str(path)]) == 2
    error = capsys.readouterr().err.strip()
    assert "holds the method 'lora_per_skill'" in error
    assert "\n" not in error


def wait_for(path: Path) -> None:
    until = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.01)


def test_killed_half_way_it_ends_in_the_same_table(made, whole, capsys):
    out = made / "killed"
    process = started.start(main, command(made, out))
    comparison = Comparison(out)
    first, last = comparison.cell_path("csreft", 3), comparison.cell_path("lora_per_skill", 3)
    wait_for(last / "metrics.jsonl")
    process.kill()
    process.join()
    assert process.exitcode != 0
    assert [comparison.state(m, 3) for m in METHOD_LABELS] == ["finished", "failed", "missing"]
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(command(made, out)) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [row["state"] for row in shown] == ["finished", "failed", "finished"]
    assert {p: p.stat().st_mtime_ns for p in first.rglob("*") if p.is_file()} == before
    cells = [tables.cells(c).drop(columns=CLOCK) for c in (comparison, whole)]
    pd.testing.assert_frame_equal(*cells)
    for name in TABLES:
        found, expected = (getattr(tables, name)(c) for c in (comparison, whole))
        pd.testing.assert_frame_equal(found, expected)
        assert len(expected) > 0


def help_out(argv: list[str], env: dict[str, str], said: Path) -> None:
    """What a helper of `--jobs` does, in a process that has its libraries already."""
    os.environ.update(env)
    with said.open("w") as file, redirect_stderr(file):
        main(argv)


def test_two_processes_share_the_cells(made, tmp_path, monkeypatch, capsys):
    """Whoever does a cell, it is done once."""
    out, said = made / "two", tmp_path / "said"

    class Helper:
        def __init__(self, argv: list[str], *, env: dict[str, str], stdout: int) -> None:
            assert argv[:3] == [sys.executable, "-m", "csreft_core"]
            assert stdout == subprocess.DEVNULL
            own = {name: value for name, value in env.items() if os.environ.get(name) != value}
            self.process = started.start(help_out, argv[3:], own, said)

        def wait(self) -> None:
            self.process.join()
            self.returncode = self.process.exitcode

    only_here = SimpleNamespace(Popen=Helper, DEVNULL=subprocess.DEVNULL)
    monkeypatch.setattr(compare, "subprocess", only_here)
    argv = [*command(made, out, "--jobs", "2", "--table", "scores"), "--set", "train.steps=2"]
    argv[argv.index("--methods") + 1] = "red,loreft"
    assert main(argv) == 0
    printed, own = capsys.readouterr()
    assert {row["method"] for row in json.loads(printed)} == {"red", "loreft"}
    both = own + said.read_text()
    assert both.count(": running") == both.count(": finished") == 2


def test_a_comparison_of_an_earlier_version_goes_on_with_its_base_and_no_other(old, base):
    asked = old.plan()
    by_the_old_rule = replace(asked, base_fingerprint=old_rule(base.model))
    shutil.rmtree(old.path)
    begin(old.path, by_the_old_rule)
    assert begin(old.path, asked).plan() == by_the_old_rule
    with pytest.raises(RunError, match=r"other per_skill, weights \(as far as"):
        begin(old.path, replace(asked, base_fingerprint="0" * 64, per_skill=5))


def test_another_comparison_or_other_files_are_left_alone(made, whole, tmp_path, capsys):
    argv = command(made, whole.path)
    assert main([*argv, "--per-skill", "5"]) == 2
    assert "other per_skill" in capsys.readouterr().err
    (tmp_path / "note.txt").write_text("mine")
    assert main(command(made, tmp_path)) == 2
    assert "has other files" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


@pytest.mark.fast
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--methods", "csreft,qlora", "no method 'qlora'"),
        ("--seeds", "a", "--seeds expects numbers"),
        ("--budget", "0", "at least 1"),
        ("--preset", "nothing", "unknown comparison"),
        ("--single-steps", "0", "at least 1"),
    ],
)
def test_mistakes_cost_one_line(made, tmp_path, capsys, option, value, message):
    out = tmp_path / "out"
    assert main([*command(made, out), option, value]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not out.exists()


def test_a_broken_folder_says_what_to_do(tmp_path, made, whole):
    with pytest.raises(RunError, match="is no comparison"):
        open_comparison(tmp_path)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "comparison.json").write_text('{"name": 3}')
    with pytest.raises(RunError, match="is broken"):
        open_comparison(tmp_path / "one")
    assert list_comparisons(tmp_path) == []
    assert [c.name for c in list_comparisons(made)].count("whole") == 1
    asked = replace(whole.plan(), variants={"../x": Variant(config=Config())})
    with pytest.raises(RunError, match="cannot name"):
        begin(tmp_path / "two", asked)


@pytest.mark.parametrize("label", [label for label in METHODS if label != "bitfit"])
def test_a_budget_is_met_as_nearly_as_the_method_can(base, label):
    """Next sizes up and down are no nearer, by ratio."""
    budget, skills = 3000, ("red", "blue")
    config = METHODS[label].config
    found = match_budget(config, base, skills, budget)
    total = build_method(found, base, skills).counts()["total"]
    ratio = max(total / budget, budget / total)
    if label == "full":
        assert found == config
        return
    if label in ("red", "ia3"):  # all blocks are still fewer than the budget
        assert found.method.layers is None
        return
    name = "rank" if found.method.name == "csreft" else "size"
    part = found.adapter if name == "rank" else found.method
    for size in (getattr(part, name) - 1, getattr(part, name) + 1):
        if size < 1:
            continue
        other = replace(part, **{name: size})
        group = "adapter" if name == "rank" else "method"
        try:
            near = build_method(replace(found, **{group: other}), base, skills).counts()["total"]
        except ConfigError:  # more rows than dimensions
            continue
        assert max(near / budget, budget / near) >= ratio
    # Forms without W have d + 1 parameters a dimension, and no more dimensions than d.
    assert ratio < (3 if label in ("consreft", "lobireft") else 1.5)


@pytest.mark.fast
def test_too_small_a_budget_takes_fewer_blocks(base):
    config = METHODS["lora"].config
    found = match_budget(config, base, ("red", "blue"), 500)
    assert found.method.size == 1
    assert found.method.layers is not None
    assert len(found.method.layers) < base.n_layers


@cache
def skills_of(name: str) -> tuple[str, ...]:
    return read_skills(name).names


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_preset_of_compare_fits_the_shipped_base(name, pocket):
    for label, variant in COMPARISONS[name].items():
        if label in ("bitfit", "full"):
            continue
        names = skills_of(variant.config.data.path)[: variant.n_skills]
        assert build_method(variant.config, pocket, names).counts()["total"] > 0


@pytest.fixture(scope="module")
def pocket() -> Base:
    return load_base(BaseConfig())
