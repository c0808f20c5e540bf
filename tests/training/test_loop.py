"""Training: what learns, what stays, what holds at every step, and what is written down."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from csreft_core.attachment.attach import attach
from csreft_core.base.load import Base, load_base
from csreft_core.config import BaseConfig, Config
from csreft_core.errors import RunError, SkillSetError
from csreft_core.reft.adapter import build_adapter, load_adapter
from csreft_core.runs.all_runs import create_run
from csreft_core.runs.run import Run
from csreft_core.skills.skill_set import SkillSet, read_skills
from csreft_core.training.loop import train
from tests import tiny_runs
from tests.training.steps import quick

STEP_KEYS = {
    "kind",
    "step",
    "loss",
    "loss_by_skill",
    "gates_by_skill",
    "gate_entropy",
    "orthonormality_error",
    "constraint_error",
    "overlap",
    "grad_norm",
    "lr",
    "router_lr",
    "tokens_per_second",
    "time_left_s",
    "elapsed_s",
}
EVAL_KEYS = {"kind", "step", "split", "skills", "mean", "gates_by_skill"}
START_KEYS = {
    "kind",
    "step",
    "parameters",
    "base_parameters",
    "n_processes",
    "n_rows",
    "n_cut",
    "notes",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Base:
    return load_base(
        BaseConfig(path=str(tiny_runs.save_base(tmp_path_factory.mktemp("base") / "tiny")))
    )


@pytest.fixture(scope="module")
def skill_set(tmp_path_factory) -> SkillSet:
    path = tmp_path_factory.mktemp("skills") / "two.jsonl"
    return read_skills(str(tiny_runs.write_rows(path, tiny_runs.rows())))


def trained(
    path: Path, base: Base, skill_set: SkillSet, config: Config
) -> tuple[Run, list[dict[str, Any]]]:
    run = create_run(path, config, skill_set)
    return run, list(train(run, base))


@pytest.mark.fast
def test_every_skill_gets_better_and_the_base_stays(tmp_path, base, skill_set):
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    run, records = trained(tmp_path / "run", base, skill_set, quick(base))
    evals = [record for record in records if record["kind"] == "eval"]
    for skill in tiny_runs.SKILLS:
        # A random base gives the answers about 13 nats a token; 30 steps take off several.
        first, last = (evals[i]["skills"][skill]["loss"] for i in (0, -1))
        assert last < first - 1
    after = base.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(p.requires_grad or p.grad is not None for p in base.model.parameters())
    assert run.status().state == "finished"
    assert run.checkpoints() == []
    adapter = load_adapter(run.adapter_path)
    with attach(base, adapter):  # the positive control: the trained edit does something
        ids = torch.tensor([[5, 6, 7]])
        edited = base.model(input_ids=ids).logits
    assert not torch.equal(edited, base.model(input_ids=ids).logits)


def test_the_same_seed_gives_the_same_weights_and_another_one_others(tmp_path, base, skill_set):
    def weights(name: str, **more: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(len(list(tmp_path.iterdir())))  # the global generator has no say
        config = quick(base, "adapter.dropout=0.3", steps=6, **more)
        return load_file(trained(tmp_path / name, base, skill_set, config)[0].adapter_path)

    first, second, other = weights("a"), weights("b"), weights("c", seed=1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_the_task_loss_reaches_every_part(tmp_path, base, skill_set):
    config = quick(base, steps=4, eval_every=4)
    run, _ = trained(tmp_path / "run", base, skill_set, config)
    start = build_adapter(
        config,
        d_model=base.d_model,
        n_layers=base.n_layers,
        skills=skill_set.names,
        base_fingerprint=base.fingerprint,
    ).state_dict()
    end = load_file(run.adapter_path)
    unmoved = [name for name in start if torch.equal(start[name], end[name])]
    assert unmoved == []  # no weight decay, no supervision: only a gradient moves a value
    assert {name.split(".")[-1] for name in start} >= {"raw", "W", "b"}
    assert any(name.startswith("router.") for name in start)


@pytest.mark.parametrize("constraint", ["joint", "within", "sequential"])
def test_exact_constraints_hold_at_every_step(tmp_path, base, skill_set, constraint):
    config = quick(base, f"adapter.constraint={constraint}", "train.weight_decay=0.1")
    _, records = trained(tmp_path / "run", base, skill_set, config)
    steps = [record for record in records if record["kind"] == "step"]
    assert [record["step"] for record in steps] == [*range(1, 31)]
    assert max(record["constraint_error"] for record in steps) <= 1e-5
    assert max(record["orthonormality_error"] for record in steps) <= 1e-5
    joint = constraint != "within"
    assert (max(record["overlap"] for record in steps) <= 1e-9) == joint


def test_without_a_constraint_the_rows_drift(tmp_path, base, skill_set):
    config = quick(base, "adapter.constraint=none")
    _, records = trained(tmp_path / "run", base, skill_set, config)
    assert records[-2]["orthonormality_error"] > 1e-3


SETTINGS = {
    "fixed": ["adapter.constraint=fixed"],
    "penalty": ["adapter.constraint=penalty"],
    "direft": ["adapter.form=direft"],
    "consreft": ["adapter.form=consreft", "adapter.init=random"],
    "lobireft": ["adapter.form=lobireft"],
    "noreft": ["adapter.form=noreft", "adapter.constraint=none"],
    "two layers": ["adapter.layers=[0,2]"],
    "untied": ["adapter.positions=f2+l2", "adapter.tied=false"],
    "all tokens": ["adapter.positions=all"],
    "four subspaces": ["adapter.n_subspaces=4"],
    "first token": ["router.input=first_token", "router.hidden=paper", "router.sparsity=0.1"],
    "last token": ["router.input=last_prompt_token", "router.layer=0"],
    "softmax": ["router.gate=softmax", "router.supervision=1"],
    "hard": ["router.gate=hard", "router.omega=balance", "router.sparsity=0.1"],
    "top-k": ["router.gate=top_k", "router.omega=entropy", "router.sparsity=0.1"],
    "per token": ["router.granularity=per_token", "router.supervision=1", "router.sparsity=0.1"],
    "oracle": ["router.gates=oracle"],
    "oracle and router": ["router.gates=oracle", "router.supervision=1"],
    "uniform": ["router.gates=uniform"],
    "one edit": ["router.gates=uniform", "adapter.n_subspaces=1"],
}


@pytest.mark.parametrize("assignments", SETTINGS.values(), ids=SETTINGS.keys())
def test_every_kind_of_setting_trains_to_a_usable_adapter(tmp_path, base, skill_set, assignments):
    run, records = trained(
        tmp_path / "run", base, skill_set, quick(base, *assignments, steps=6, eval_every=6)
    )
    first, last = (record["mean"]["loss"] for record in records if record["kind"] == "eval")
    assert last < first
    assert load_adapter(run.adapter_path).names == tuple(records[-1]["gates_by_skill"]["red"])


def test_records_hold_what_the_pages_draw(tmp_path, base, skill_set):
    run, records = trained(tmp_path / "run", base, skill_set, quick(base))
    by_kind = {
        kind: [r for r in records if r["kind"] == kind] for kind in ("start", "step", "eval")
    }
    assert {frozenset(r) for r in by_kind["start"]} == {frozenset(START_KEYS)}
    assert {frozenset(r) for r in by_kind["step"]} == {frozenset(STEP_KEYS)}
    assert {frozenset(r) for r in by_kind["eval"]} == {frozenset(EVAL_KEYS)}
    # 2 skills * (R and W 2 * 32, b 2) = 260; the router has 32 -> 32 -> 2 with a norm of 32 and 32.
    start = by_kind["start"][0]["parameters"]
    assert start["subspaces"] == 260
    assert start["total"] == start["subspaces"] + start["router"]
    assert [r["step"] for r in by_kind["eval"]] == [0, 15, 30]
    assert [path.stem for path in run.snapshots()] == [
        "step-00000000",
        "step-00000015",
        "step-00000030",
    ]
    last = by_kind["step"][-1]
    assert last["time_left_s"] == 0
    assert set(last["gates_by_skill"]["red"]) == set(tiny_runs.SKILLS)
    assert run.metrics() == json.loads(json.dumps(records))
    assert run.status().step == run.status().total_steps == 30
    provenance = run.config().provenance
    assert provenance is not None
    assert provenance.base_fingerprint == base.fingerprint
    assert provenance.template == "Q: {prompt}\nA:"
    assert provenance.versions["torch"] == version("torch")


def test_data_without_labels_trains_with_a_number_of_subspaces(tmp_path, base):
    rows = [{k: v for k, v in row.items() if k != "skill"} for row in tiny_runs.rows()]
    skill_set = read_skills(str(tiny_runs.write_rows(tmp_path / "mine.jsonl", rows)))
    config = quick(base, "adapter.n_subspaces=3", steps=4)
    run, records = trained(tmp_path / "run", base, skill_set, config)
    assert set(records[-1]["skills"]) == {"unlabelled"}
    assert load_adapter(run.adapter_path).names == ("subspace 1", "subspace 2", "subspace 3")


def test_a_row_without_the_label_that_training_needs_is_refused(tmp_path, base):
    rows = tiny_runs.rows()
    rows[3].pop("skill")
    skill_set = read_skills(str(tiny_runs.write_rows(tmp_path / "mine.jsonl", rows)))
    run = create_run(tmp_path / "run", quick(base, "router.supervision=1"), skill_set)
    with pytest.raises(SkillSetError, match="no skill; label every row"):
        list(train(run, base))
    assert run.status().state == "failed"
    assert "label every row" in run.status().message


def test_an_exploding_run_fails_with_a_remedy(tmp_path, base, skill_set):
    run = create_run(tmp_path / "run", quick(base, lr=1e38, router_lr=1e38), skill_set)
    with pytest.raises(RunError, match=r"not finite at step \d+; lower train\.lr"):
        list(train(run, base))
    assert run.status().state == "failed"
    assert not run.adapter_path.exists()


def test_rows_that_are_too_long_are_counted_and_cut(tmp_path, base):
    rows = tiny_runs.rows()
    rows[2]["prompt"] = "w3 " * 70  # the base reads 64 tokens
    skill_set = read_skills(str(tiny_runs.write_rows(tmp_path / "mine.jsonl", rows)))
    _, records = trained(tmp_path / "run", base, skill_set, quick(base, steps=2))
    assert (records[0]["n_cut"], records[0]["n_rows"]) == (1, 48)
    _, records = trained(tmp_path / "short", base, skill_set, quick(base, steps=2, max_length=8))
    assert records[0]["n_cut"] == 1  # the others have 3 words, `Q:`, `A:`, 2 answer words, the end
