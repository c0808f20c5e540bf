"""The memory estimate against what is really used, and what happens when memory runs out."""

import gc
import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from benchmarks.memory import config_on, save_random, step_use
from csreft_core.base import devices
from csreft_core.base.devices import compute_type, free_bytes
from csreft_core.base.load import load_base
from csreft_core.base.memory import exhausted as out_of_memory
from csreft_core.base.memory.exhausted import memory_errors, training_advice
from csreft_core.base.memory.need import (
    in_gb,
    need,
    smaller_setting,
    training_need,
    weight_bytes,
)
from csreft_core.base.memory.use import (
    LiveBytes,
    estimate_error,
    n_bytes,
    tensors_of,
    weight_bytes_of,
)
from csreft_core.base.shapes import shape_of, shape_of_description
from csreft_core.cli import main
from csreft_core.cli import memory as command_module
from csreft_core.config import BaseConfig, assignments, preset, with_overrides
from csreft_core.errors import ConfigError, NotEnoughMemoryError
from csreft_core.inference.engine import Engine
from csreft_core.runs.all_runs import create_run
from csreft_core.skills.skill_set import read_skills
from csreft_core.training.loop import train
from tests import started
from tests.families import ALL_FAMILIES, build

# Vocabulary and width in the proportions of a small real model, so that every part counts.
SMALL = LlamaConfig(
    vocab_size=4000,
    hidden_size=256,
    intermediate_size=688,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=4,
    max_position_embeddings=128,
    tie_word_embeddings=False,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
LLAMA_2_7B = LlamaConfig(
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    vocab_size=32000,
    max_position_embeddings=4096,
)
POCKET, SMALLER = ("pocket", (1,), (8, 32, 8)), ("small", (0, 2), (4, 64, 16))


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return {"pocket": "pocket", "small": save_random(SMALL, tmp_path_factory.mktemp("small"))}


@pytest.fixture(scope="module")
def seven_billion():
    return shape_of_description(LLAMA_2_7B)


@pytest.mark.parametrize(
    ("name", "layers", "size", "precision"),
    [(*POCKET, "fp32"), (*POCKET, "bf16"), (*SMALLER, "fp32"), (*SMALLER, "nf4")],
)
def test_the_estimate_is_near_what_a_training_step_uses(paths, name, layers, size, precision):
    if precision == "nf4":
        pytest.importorskip("bitsandbytes")
    batch, length, answer = size
    base_config = BaseConfig(path=paths[name], precision=precision)
    shape, base = shape_of(base_config), load_base(base_config)
    for checkpointing in (False, True):
        config = config_on(base_config, layers, checkpointing=checkpointing)
        estimate = need(shape, config, batch=batch, length=length, answer=answer)
        use = step_use(base, config, batch=batch, length=length, answer=answer)
        off = estimate_error(estimate, use)
        assert abs(off["weights"]) < 0.01
        assert abs(off["total"]) < 0.25
        assert use.total < estimate.total * 1.1


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "nf4", "fp4", "int8"])
def test_weights_are_known_before_they_are_read(paths, precision):
    if precision in ("nf4", "fp4", "int8"):
        pytest.importorskip("bitsandbytes")
    config = BaseConfig(path=paths["small"], precision=precision)
    expected = weight_bytes_of(load_base(config).model)
    # The only difference is rounding in the blocks of 64 and 256.
    assert weight_bytes(shape_of(config), config) == pytest.approx(expected, rel=1e-3)


def test_parameters_of_a_published_model_are_counted_exactly(seven_billion):
    assert seven_billion.n_parameters == 6_738_415_616  # Llama 2, 7 B
    assert seven_billion.n_linear == 32 * 7
    assert seven_billion.largest_linear == 4096 * 11008
    in_nf4 = weight_bytes(seven_billion, BaseConfig(precision="nf4", compute="bf16"))
    # 6.48 G weights at 4.127 bits, embedding and head at 16.
    assert in_nf4 == pytest.approx(6_476_005_376 * 4.127 / 8 + 262_410_240 * 2, rel=1e-3)


def test_a_llama_block_keeps_what_the_formula_says(seven_billion):
    d, d_mlp, n_heads, width = 4096, 11008, 32, 128
    norms, attention, mlp = 2 * d, 4 * d, 3 * d_mlp
    few = 2 + n_heads + 2 * width  # scales of the norms, log-sums of the softmax, sine and cosine
    expected = 4 * (norms + attention + mlp + few)
    assert seven_billion.kept_fp32.token == pytest.approx(expected, rel=1e-3)
    assert seven_billion.kept_fp32.pair == 4
    # In 16 bits the norms still keep 32.
    expected = 2 * (attention + mlp) + 4 * norms
    assert seven_billion.kept_half.token == pytest.approx(expected, rel=0.01)


@ALL_FAMILIES
def test_every_family_is_counted_from_its_description(family):
    model = build(family)
    shape = shape_of_description(model.config)
    assert shape.n_parameters == model.num_parameters()
    assert shape.n_layers == 3
    assert shape.d_model == 32
    assert shape.kept_half.token > 2 * 32 * 4
    # Twice the numbers, each at most as large.
    assert shape.kept_half.token < shape.kept_fp32.token <= 2 * shape.kept_half.token


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "neox"])
def test_a_block_keeps_what_was_counted(family):
    """The same count on real tensors, of all blocks but the first two, padded as in training."""
    about = AutoConfig.for_model(**build(family).config.to_dict())
    model = AutoModelForCausalLM.from_config(about).eval().requires_grad_(False)
    shape = shape_of_description(about)
    kept, mask = {}, torch.ones(4, 24, dtype=torch.long)
    mask[0, :5] = 0

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    embedded = model.get_input_embeddings()(torch.ones(4, 24, dtype=torch.long)).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model.base_model(inputs_embeds=embedded, attention_mask=mask, use_cache=False)
    of_parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    measured = n_bytes(t for key, t in kept.items() if key not in of_parameters)
    assert output.last_hidden_state.requires_grad
    # Beside the blocks there is the last norm, and what all blocks share is counted once.
    assert measured == pytest.approx(3 * shape.kept_fp32.of(4, 24), rel=0.08)


def test_live_bytes_are_those_of_the_tensors_that_live():
    held = torch.zeros(100)
    with LiveBytes([held]) as live:
        a = torch.zeros(1000)
        view = a.view(10, 100)[2:]
        assert live.now == 4 * 1100
        b = a * 2
        del b
        assert live.now == 4 * 1100
        a.add_(1)
        del a
        assert live.now == 4 * 1100  # the view still holds it
        del view
    assert (live.now, live.peak) == (4 * 100, 4 * 2100)


def test_gradients_of_a_backward_pass_are_counted():
    weight = torch.zeros(1000, requires_grad=True)
    with LiveBytes([weight]) as live:
        (weight * 3).sum().backward()
    assert live.now == 2 * 4 * 1000


def test_a_shared_tensor_is_counted_once():
    shape = shape_of_description(replace_config(SMALL, tie_word_embeddings=True))
    assert shape_of_description(SMALL).n_parameters - shape.n_parameters == 4000 * 256
    base = load_base(BaseConfig())
    assert weight_bytes_of(base.model) == n_bytes(tensors_of(base.model))
    assert n_bytes([*tensors_of(base.model), *tensors_of(base.model)]) == weight_bytes_of(
        base.model
    )


def test_a_shape_leaves_the_number_format_of_other_threads_alone(monkeypatch):
    """Torch's default belongs to the process; a load in another thread would take it up."""
    about, chosen, choose = replace_config(SMALL, dtype=torch.bfloat16), [], torch.set_default_dtype
    monkeypatch.setattr(
        torch, "set_default_dtype", lambda dtype: chosen.append(dtype) or choose(dtype)
    )
    shape_of_description(about)
    assert set(chosen) <= {torch.float32}
    AutoModelForCausalLM.from_config(about)
    assert torch.bfloat16 in chosen


def replace_config(config, **changes):
    return LlamaConfig(**{**config.to_dict(), **changes})


def at(config, shape, **size):
    return need(shape, config, **{"batch": 4, "length": 128, "answer": 32, **size})


def test_what_more_memory_is_needed_for(seven_billion):
    shape = seven_billion
    config = with_overrides(preset("recommended"), ["base.precision=bf16", "adapter.layers=[8]"])
    start = at(config, shape)
    assert at(config, shape, batch=8).activations == pytest.approx(2 * start.activations, rel=0.01)
    assert at(config, shape, length=256).activations > 2 * start.activations
    assert at(config, shape, answer=64).logits == 2 * start.logits
    above = with_overrides(config, ["adapter.layers=[16]"])
    assert at(above, shape).activations == pytest.approx(start.activations * 15 / 23, rel=0.02)
    recomputed = at(with_overrides(config, ["train.checkpointing=true"]), shape)
    assert recomputed.activations < 0.2 * start.activations
    wide = at(with_overrides(config, ["adapter.rank=4"]), shape)
    assert start.optimizer == 3 * start.adapter
    assert start.adapter < wide.adapter < 2 * start.adapter  # the router stays
    answering = at(config, shape, training=False)
    assert answering.optimizer == 0
    # Keys and values: 32 layers, 2 x 4096 numbers of 2 bytes, 4 x 128 tokens.
    assert answering.activations == 32 * 2 * 4096 * 2 * 4 * 128
    assert start.total == sum(vars(start).values())


def test_an_adapter_that_does_not_fit_the_base_is_said_so(seven_billion):
    with pytest.raises(ConfigError, match="layers 0 to 31"):
        at(with_overrides(preset("recommended"), ["adapter.layers=[32]"]), seven_billion)


def test_the_smaller_setting_fits_and_changes_no_more_than_it_must(seven_billion):
    config = with_overrides(
        preset("recommended"), ["base.precision=bf16", "adapter.layers=[8]", "train.batch_size=12"]
    )
    found = {}
    for free in (40, 20, 10, 5, 4, 3):
        fitting = smaller_setting(seven_billion, config, free * 10**9)
        found[free] = None if fitting is None else assignments(config, fitting)
        if fitting is not None:
            assert training_need(seven_billion, fitting).total <= free * 10**9
    in_4_bits = ["base.precision=nf4", "base.compute=bf16"]
    assert found == {
        40: [],
        20: ["train.accumulate=4"],
        10: [*in_4_bits, "train.checkpointing=true"],
        5: [*in_4_bits, "train.accumulate=4", "train.checkpointing=true"],
        4: [*in_4_bits, "train.accumulate=12", "train.checkpointing=true", "train.max_length=64"],
        3: None,
    }


def test_free_memory_is_that_of_the_device(monkeypatch):
    assert 0 < free_bytes("cpu") <= free_bytes(torch.device("cpu")) * 2

    class Some:
        available = 12345

    monkeypatch.setattr(devices.psutil, "virtual_memory", Some)
    assert free_bytes("cpu") == 12345


@pytest.mark.parametrize(
    ("precision", "compute", "expected"),
    [("fp16", "auto", "float16"), ("nf4", "auto", "float32"), ("nf4", "bf16", "bfloat16")],
)
def test_the_number_format_of_the_arithmetic(precision, compute, expected):
    config = BaseConfig(precision=precision, compute=compute, device="cpu")
    assert str(compute_type(config)) == f"torch.{expected}"


def test_sizes_for_a_reader():
    assert [in_gb(n) for n in (3_865_836_928, 45_143_942, 300_000)] == ["3.9 GB", "45 MB", "0.3 MB"]


@pytest.fixture
def one_shape(monkeypatch):
    """The command counts pocket once for a test."""
    monkeypatch.setattr(command_module, "shape_of", cache(shape_of))


ARGUMENTS = ["memory", "--preset", "recommended", "--set", "train.max_length=64", "--json"]


def command(capsys, *more):
    assert main([*ARGUMENTS, *more]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("one_shape")
def test_the_command_prints_need_beside_free(capsys):
    result = command(capsys)
    assert (result["rows"], result["length"], result["answer"]) == (32, 64, 16)
    assert result["parameters"] == 1_419_904
    parts = dict(result["training"])
    assert parts.pop("total") == sum(parts.values()) < result["free"]
    assert (result["fits"], result["smaller"]) == (True, [])
    assert result["answering"]["total"] < result["training"]["total"]
    assert main(ARGUMENTS[:-1]) == 0
    out = capsys.readouterr().out
    assert "pocket in fp32 on cpu: 1,419,904 weights" in out
    assert out.rstrip().endswith("It fits.")


@pytest.mark.usefixtures("one_shape")
def test_the_command_says_which_setting_fits(capsys, monkeypatch):
    monkeypatch.setattr(command_module, "free_bytes", lambda device: 30_000_000)  # noqa: ARG005
    result = command(capsys)
    assert not result["fits"]
    assert result["smaller"] == ["train.accumulate=4"]
    again = [f"--set={change}" for change in result["smaller"]]
    assert command(capsys, *again)["fits"]
    assert main(ARGUMENTS[:-1]) == 0
    assert "It does not fit. This does: --set train.accumulate=4" in capsys.readouterr().out
    monkeypatch.setattr(command_module, "free_bytes", lambda device: 1000)  # noqa: ARG005
    assert command(capsys)["smaller"] is None


def test_the_command_refuses_what_it_cannot_know(capsys):
    assert main([*ARGUMENTS, "--set", "base.path=/nowhere"]) == 2
    assert "no folder with a config.json" in capsys.readouterr().err


def advice() -> str:
    return "do less"


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (MemoryError(), ""),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "2.1 GB"),
        (
            RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to "
                "allocate 4000000000 bytes. Error code 12"
            ),
            "4.0 GB",
        ),
    ],
)
def test_running_out_of_memory_is_an_error_with_numbers(error, asked):
    message = r"^the answer ran out of memory: .*are free now on cpu; do less$"
    with (
        pytest.raises(NotEnoughMemoryError, match=message) as caught,
        memory_errors("the answer", torch.device("cpu"), advice),
    ):
        raise error
    assert asked in str(caught.value)


def test_other_errors_stay_what_they_are():
    with (
        pytest.raises(RuntimeError, match="shapes"),
        memory_errors("the answer", torch.device("cpu"), advice),
    ):
        raise RuntimeError("shapes do not fit")


def test_the_tensors_of_the_failed_work_are_given_back():
    def work():
        large = torch.zeros(1000)
        kept.append(large.untyped_storage()._cdata)
        torch.empty(2**60)
        return large

    kept: list[int] = []
    with LiveBytes() as live:
        with (
            pytest.raises(NotEnoughMemoryError) as caught,
            memory_errors("work", torch.device("cpu"), advice),
        ):
            work()
        assert live.peak == 4000
        assert live.now == 0
    assert "1.2e" not in str(caught.value)
    assert len(kept) == 1


def short_of_memory(folder: Path, told: Any) -> None:
    """Read prompts, answer, train and answer again, with 80 MB left."""
    import resource

    config = with_overrides(preset("recommended"), ["base.device=cpu", "train.batch_size=512"])
    skills = read_skills("four")
    run = create_run(folder, config, replace(skills, rows=skills.rows[::4]))
    engine = Engine.load(config.base)
    prompts = ["What is the plural of dog?"] * 2_000
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 80_000_000
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        engine.trace(None, prompts, layers=(0, 1, 2, 3, 4, 5))
    except NotEnoughMemoryError as error:
        told.send(str(error))
    told.send(engine.generate(None, prompts[0], max_new_tokens=2).n_tokens)
    engine.close()
    try:
        for _ in train(run, engine.base):
            pass
    except NotEnoughMemoryError as error:
        told.send((run.status().state, run.status().message, str(error)))
    told.send(Engine(engine.base).generate(None, prompts[0], max_new_tokens=2).n_tokens)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is one of Linux")
def test_a_process_that_really_runs_out_of_memory_goes_on(tmp_path):
    heard, told = started.context.Pipe(duplex=False)
    process = started.start(short_of_memory, tmp_path / "run", told)
    told.close()
    reading, answer, (state, message, error), again = (heard.recv() for _ in range(4))
    process.join()
    assert reading.startswith("reading the prompts ran out of memory: another ")
    assert reading.endswith("look at fewer or shorter prompts at once")
    assert (state, message) == ("failed", error)
    assert error.startswith("training ran out of memory: another ")
    assert "; it needs about" in error
    assert "this fits: train.accumulate=" in error
    assert (answer, again) == (2, 2)


def test_a_training_is_told_what_would_fit(monkeypatch):
    about = load_base(BaseConfig()).model.config
    shape = shape_of_description(about)
    monkeypatch.setattr(out_of_memory, "shape_of_description", lambda about: shape)  # noqa: ARG005

    def told(free: int, *, longest: int = 64) -> str:
        monkeypatch.setattr(out_of_memory, "free_bytes", lambda device: free)  # noqa: ARG005
        config, cpu = preset("recommended"), torch.device("cpu")
        return training_advice(about, config, cpu, longest=longest, answer=8)

    # The estimate says that all of it fits; but it did not.
    assert told(10**12).startswith("it needs about")
    assert told(10**12).endswith("; this fits: train.accumulate=2")
    assert told(10**12, longest=16) != told(10**12)
    assert told(5_000_000).endswith("; this fits: train.accumulate=32")
    assert told(2_000_000).endswith("train.accumulate=16 train.checkpointing=true")
    assert "no smaller setting fits; use a smaller base" in told(-(10**7))


def test_the_advice_knows_a_quantised_base(paths):
    pytest.importorskip("bitsandbytes")
    config = config_on(BaseConfig(path=paths["small"], precision="nf4"), (0, 2))
    base = load_base(config.base)
    assert shape_of_description(base.model.config) == shape_of(config.base)
    assert replace(config.base, precision="fp32") != config.base
    gc.collect()
