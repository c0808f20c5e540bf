"""The pieces of the benchmarks do what their pages say; no speed is asserted."""

import importlib
import json
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from benchmarks import environments, gpu, measure, random_models, results, workload
from benchmarks.environments import PEERS, PeerMissing
from benchmarks.training_step import disagreement, rows_of
from csreft_core.inference.scoring import Encoded


def test_every_contestant_has_each_place_of_a_round_once():
    seen = []
    contestants = {name: lambda _batch, name=name: seen.append(name) for name in "abc"}
    found = workload.interleave(contestants, [[1, 2], [3]])
    assert ["".join(seen[i : i + 3]) for i in (0, 3, 6)] == ["abc", "bca", "cab"]
    assert {name: [len(epoch) for epoch in times] for name, times in found.items()} == {
        name: [2, 1] for name in "abc"
    }


def test_the_time_belongs_to_who_took_it():
    contestants = {"quick": lambda _: None, "slow": lambda _: time.sleep(0.05)}
    found = workload.interleave(contestants, [[0, 1]])
    assert min(found["slow"][0]) >= 0.05 > max(found["quick"][0])


def test_a_ratio_is_the_median_over_rounds_of_the_time_over_the_mean_limit():
    # Rounds: 2 / mean(1, 3) = 1, 6 / mean(2, 2) = 3, 1 / mean(4, 0) = 0.5.
    assert workload.ratio([2.0, 6.0, 1.0], [[1.0, 2.0, 4.0], [3.0, 2.0, 0.0]]) == 1.0
    first, again = measure.REFERENCES
    seconds = {first: [[9.0], [1.1, 1.1]], again: [[9.0], [1.0, 1.0]], "m": [[18.0], [2.1, 2.1]]}
    assert disagreement(seconds) == pytest.approx(0.1)
    assert rows_of(seconds)["m"] == ["2100", "2.000", "2.000"]


def test_batches_are_of_unequal_lengths_and_shuffled_anew():
    data = workload.samples(32, 1000)
    one, two = workload.epochs(2, 2)
    assert one != two
    assert {row for batch in one for row in batch} == set(range(32))
    assert {row for batch in two for row in batch} == set(range(32))
    lengths = {len(s.prompt) + len(s.answer) for s in data}
    assert len(lengths) > 5
    assert max(lengths) <= workload.LONGEST
    for s in data:
        assert len(s.answer) == (len(s.prompt) + len(s.answer)) // 4


def test_the_limit_trains_its_vector_and_nothing_else(monkeypatch):
    data = workload.samples(4, 1000)
    model, made = workload.llama(1000), []
    monkeypatch.setattr(
        torch.optim, "AdamW", lambda given, **_: made.extend(given) or torch.optim.SGD(given)
    )
    step = workload.frozen_limit(model, data)
    batch = workload.pad(data)
    assert (batch.labels[0] != -100).sum() == len(data[0].answer)
    assert batch.input_ids[0, batch.labels[0] != -100].tolist() == list(data[0].answer)
    before = {name: p.clone() for name, p in model.named_parameters()}
    step(range(4))
    (vector,) = made
    assert vector.shape == (256,)
    assert vector.abs().min() > 0
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert not any(block._forward_hooks for block in model.model.layers)


def task(what: str, **more) -> dict:
    return {"what": what, "library": "csreft", "vocabulary": 1000, "threads": 1, **more}


def test_our_step_keeps_states_in_the_first_epoch_and_takes_the_same_rows(tmp_path, monkeypatch):
    from benchmarks import our_methods

    asked: list[tuple[bool, list[int]]] = []
    true_start = our_methods.TrainingState.start

    def start(self, rows):
        found = true_start(self, rows)
        asked.append((found is not None, sorted(rows)))
        return found

    monkeypatch.setattr(our_methods.TrainingState, "start", start)
    data = workload.samples(32, 1000)
    for keep in (True, False):
        step = our_methods.training_step(
            workload.llama(1000), data, tmp_path / f"{keep}", keep=keep
        )
        step(None)
        step(None)
    expected = [sorted(batch) for batch in workload.epochs(2, 1)[0]]
    assert asked == [(keep, rows) for keep in (True, False) for rows in expected]
    assert isinstance(our_methods.encode_samples(data, 4), Encoded)


def test_a_process_prints_times_and_versions():
    asked = task("generation", rows=2, prompt_tokens=4, new_tokens=3, warm_up=1, rounds=2)
    found = environments.measure("csreft", asked)
    assert list(found["seconds"]) == [
        measure.REFERENCES[0],
        "CS-ReFT, prompt only",
        measure.REFERENCES[1],
        "CS-ReFT, every token",
    ]
    assert all([len(epoch) for epoch in times] == [2] for times in found["seconds"].values())
    assert found["versions"]["torch"] == torch.__version__


def test_a_peer_that_cannot_be_installed_has_its_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("CSREFT_BENCHMARKS", str(tmp_path))
    monkeypatch.setattr(environments.venv, "create", lambda *_, **__: None)
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: slow\nERROR: No matching version\n")
    monkeypatch.setattr(environments.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(PeerMissing, match="No matching version"):
        environments.python_of("peft")
    assert not list(tmp_path.glob("*/finished"))


def test_shared_pieces_load_without_this_project(monkeypatch):
    """Where a peer library is measured, this project is not installed."""
    for name in [*sys.modules]:
        if name.partition(".")[0] in ("benchmarks", "csreft_core"):
            monkeypatch.delitem(sys.modules, name)
    with pytest.MonkeyPatch.context() as hidden:
        hidden.setitem(sys.modules, "csreft_core", None)  # an import of it fails
        with pytest.raises(ImportError):
            importlib.import_module("benchmarks.our_methods")
        importlib.import_module("benchmarks.measure")
    for name in [*sys.modules]:
        if name.partition(".")[0] == "benchmarks":
            del sys.modules[name]
    assert set(PEERS) == set(measure.LIBRARIES) - {"csreft"}


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_random_models_are_built_where_they_run(precision):
    if precision == "nf4":
        pytest.importorskip("bitsandbytes")
    base = random_models.build("small", precision, "cpu")
    devices = {t.device.type for t in (*base.model.parameters(), *base.model.buffers())}
    assert devices == {"cpu"}
    ids = torch.arange(3, 11).reshape(1, 8)
    logits = base.model(ids, use_cache=False).logits
    assert logits.isfinite().all()
    assert not torch.equal(logits[0, 0], logits[0, 1])
    in_4_bits = [m for m in base.blocks.modules() if type(m).__name__ == "Linear4bit"]
    assert len(in_4_bits) == (7 * 6 if precision == "nf4" else 0)
    if in_4_bits:
        assert all(layer.weight.dtype == torch.uint8 for layer in in_4_bits)
        assert all(layer.weight.quant_state.nested for layer in in_4_bits)
        assert all(layer.training for layer in in_4_bits)
    assert isinstance(base.model.lm_head, nn.Linear)
    assert type(base.model.lm_head) is nn.Linear


def test_the_gpu_page_says_that_it_has_not_run_on_one(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(gpu, "WARM_UP", 0)
    monkeypatch.setattr(gpu, "N_ANSWER", 4)
    arguments = ["gpu.py", "--small", "--device", "cpu", "--precision", "fp32", "--save"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--batch", "2"])
    gpu.main()
    page = capsys.readouterr().out
    assert "This has not run on a GPU" in page
    assert "CS-ReFT, checkpointed, kept states" in page
    (text,) = tmp_path.glob("*.md")
    assert text.name.endswith("gpu-not-run.md")
    assert text.read_text(encoding="utf-8") == page[:-1]
    (raw,) = tmp_path.glob("*.json")
    times = json.loads(raw.read_text(encoding="utf-8"))["small fp32"]
    assert {len(found) for found in times["training"].values()} == {2}
