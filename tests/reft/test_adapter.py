"""The adapter file: the same numbers come back, and nothing else is read."""

import json
import pickle
import resource
import shutil
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from csreft_core.attachment.attach import attach
from csreft_core.config import PRESETS, AdapterConfig, Config, RouterConfig, with_overrides
from csreft_core.errors import AdapterError, ConfigError
from csreft_core.reft.adapter import (
    build_adapter,
    load_adapter,
    parameter_counts,
    read_adapter_file,
    save_adapter,
)
from csreft_core.reft.base_record import check_base
from tests.tiny import make_adapter, padded, tiny_base, tokens

SKILLS = ("a", "b", "c", "d")


def build(*overrides, preset="recommended", d_model=32, n_layers=3, skills=SKILLS):
    config = with_overrides(PRESETS[preset], overrides)
    return build_adapter(
        config, d_model=d_model, n_layers=n_layers, skills=skills, base_fingerprint="0" * 64
    )


@pytest.mark.fast
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"constraint": "within"},
        {"constraint": "sequential", "positions": "f2+l2", "tied": False},
        {"constraint": "fixed"},
        {"form": "noreft", "constraint": "none"},
        {"form": "consreft", "init": "random"},
        {"layers": (0, 2), "form": "lobireft"},
    ],
)
@pytest.mark.parametrize("router", [RouterConfig(), RouterConfig(gates="uniform")])
def test_save_and_load_give_the_same_logits(tiny_llama, tmp_path, settings, router):
    base, path = tiny_base(tiny_llama), tmp_path / "adapter.safetensors"
    saved = make_adapter(base, k=3, router=router, **{"layers": (1,), **settings})
    save_adapter(saved, path)
    loaded = load_adapter(path)
    assert loaded.spec == saved.spec
    assert not loaded.training
    logits = []
    for adapter in (saved, loaded, make_adapter(base, k=3, router=router, seed=9, **settings)):
        with torch.no_grad(), attach(base, adapter):
            logits.append(tiny_llama(**padded(tokens(5, 8))).logits)
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


def test_save_is_atomic_and_replaces(tmp_path):
    path = tmp_path / "adapter.safetensors"
    save_adapter(make_adapter(seed=0), path)
    save_adapter(make_adapter(seed=1), path)
    assert [p.name for p in tmp_path.iterdir()] == ["adapter.safetensors"]
    assert torch.equal(load_adapter(path).at(1).raw, make_adapter(seed=1).at(1).raw)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "adapter.safetensors"
    save_adapter(make_adapter(), path)
    return path


def rewrite(path, *, change_spec=None, change_tensors=None, metadata=True):
    """Write the file again with something changed."""
    with safe_open(path, framework="pt") as f:
        tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
        spec = json.loads(f.metadata()["csreft"])
    if change_spec:
        change_spec(spec)
    if change_tensors:
        change_tensors(tensors)
    save_file(tensors, path, metadata={"csreft": json.dumps(spec)} if metadata else None)


def test_an_unchanged_rewrite_is_read(file):
    rewrite(file)
    load_adapter(file)


def test_missing_file(tmp_path):
    with pytest.raises(AdapterError, match="no such adapter file; train"):
        load_adapter(tmp_path / "adapter.safetensors")


def test_folder_instead_of_a_file(tmp_path):
    with pytest.raises(AdapterError, match="no such adapter file; train"):
        load_adapter(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, 2000])
def test_truncated_file(file, keep):
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(AdapterError, match=r"damaged or not a safetensors file .*; copy it again"):
        load_adapter(file)


def test_text_pickle_and_huge_header(file):
    for content in (b"not tensors" * 50, pickle.dumps({"raw": 1}), struct.pack("<Q", 2**60)):
        file.write_bytes(content)
        with pytest.raises(AdapterError, match="damaged or not a safetensors file"):
            load_adapter(file)


def test_safetensors_of_something_else(file):
    rewrite(file, metadata=False)
    with pytest.raises(AdapterError, match="not a CS-ReFT adapter; give a run's"):
        load_adapter(file)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(file, value):
    rewrite(file, change_tensors=lambda t: t["subspaces.1.W"].view(-1)[3].fill_(value))
    with pytest.raises(AdapterError, match=r"not finite; train again, lower train\.lr"):
        load_adapter(file)


def test_newer_schema(file):
    rewrite(file, change_spec=lambda s: s.update(schema_version=99))
    with pytest.raises(AdapterError, match=r"schema_version is 99, .*update the program"):
        load_adapter(file)


def other_rank(spec):
    spec["adapter"]["rank"] = 3


def other_layers(spec):
    spec["adapter"]["layers"] = [0]


def no_router(spec):
    spec["router"]["gates"] = "uniform"


@pytest.mark.parametrize("change", [other_rank, other_layers, no_router])
def test_description_and_tensors_that_disagree(file, change):
    rewrite(file, change_spec=change)
    with pytest.raises(AdapterError, match="do not have the names, shapes and types"):
        load_adapter(file)


def test_tensor_of_another_shape(file):
    rewrite(file, change_tensors=lambda t: t.update({"subspaces.1.b": torch.zeros(1, 2, 5)}))
    with pytest.raises(AdapterError, match="do not have the names, shapes and types"):
        load_adapter(file)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16])
def test_tensor_of_another_type(file, dtype):
    rewrite(
        file, change_tensors=lambda t: t.update({"subspaces.1.b": t["subspaces.1.b"].to(dtype)})
    )
    with pytest.raises(AdapterError, match="do not have the names, shapes and types"):
        load_adapter(file)


def without_width(spec):
    del spec["d_model"]


def unknown_field(spec):
    spec["adapter"]["extra"] = 1


def unknown_part(spec):
    spec["mixture"] = 1


def layer_beyond(spec):
    spec["adapter"]["layers"] = [7]


def too_many_rows(spec):
    spec["adapter"]["rank"] = 30


def no_names(spec):
    spec["names"] = []


@pytest.mark.parametrize(
    "change", [without_width, unknown_field, unknown_part, layer_beyond, too_many_rows, no_names]
)
def test_description_that_cannot_be(file, change):
    rewrite(file, change_spec=change)
    with pytest.raises(AdapterError, match=str(file)):
        load_adapter(file)


@pytest.mark.parametrize("text", ["{", "[]", "null", "3", ""])
def test_description_that_is_no_json_object(file, text):
    save_file({"x": torch.zeros(1)}, file, metadata={"csreft": text})
    with pytest.raises(AdapterError, match="its description cannot be read"):
        load_adapter(file)


def test_adapter_of_another_base(tiny_llama):
    base = tiny_base(tiny_llama)
    check_base(make_adapter(base).spec.base_fingerprint, base.fingerprint, base.id)
    with pytest.raises(AdapterError, match="trained on a base with other weights"):
        check_base(make_adapter().spec.base_fingerprint, base.fingerprint, base.id)


@pytest.mark.parametrize("form", ["loreft", "direft", "noreft", "consreft", "lobireft"])
@pytest.mark.parametrize(("positions", "groups"), [("l1", 1), ("f2+l2", 2)])
def test_parameter_counts_are_the_formulas(form, positions, groups):
    d, k, r, m, layers = 32, 4, 3, 16, 2
    constraint = "none" if form == "noreft" else "joint"
    adapter = build(
        f"adapter.form={form}",
        f"adapter.constraint={constraint}",
        "adapter.init=random",
        f"adapter.positions={positions}",
        f"adapter.tied={'true' if groups == 1 else 'false'}",
        "adapter.layers=[0,2]",
        f"adapter.rank={r}",
        f"router.hidden={m}",
    )
    edit = r * (2 * d + 1) if form in ("loreft", "direft", "noreft") else r * (d + 1)
    subspaces, router = groups * layers * k * edit, d + m * (d + 1) + k * (m + 1)
    counts = {"subspaces": subspaces, "router": router, "total": subspaces + router}
    assert parameter_counts(adapter) == counts


def test_parameter_counts_of_the_digest():
    """Digest 3.1: the configuration that really totals 659,684."""
    adapter = build(
        "adapter.rank=4",
        "adapter.layers=[3,9,18,24]",
        "adapter.positions=f5+l5",
        d_model=4096,
        n_layers=32,
    )
    counts = {"subspaces": 524_352, "router": 135_332, "total": 659_684}
    assert parameter_counts(adapter) == counts


def test_a_fixed_basis_is_not_counted():
    adapter = build("adapter.constraint=fixed", "router.gates=uniform", "router.supervision=0")
    assert parameter_counts(adapter) == {"subspaces": 264, "router": 0, "total": 264}  # 4*2*(32+1)


@pytest.mark.parametrize(
    ("overrides", "skills", "message"),
    [
        (["adapter.layers=[1,3]"], SKILLS, "adapter.layers has 3, but the base has layers 0 to 2"),
        (["adapter.layers=[-1]"], SKILLS, "adapter.layers has -1, but"),
        (["router.layer=2", "adapter.layers=[1]"], SKILLS, "above the first edited layer 1"),
        (["adapter.rank=9"], SKILLS, r"k\*r = 4\*9 = 36 is more than d_model 32"),
        (["adapter.n_subspaces=3"], SKILLS, "n_subspaces is 3 and the data has 4 skills"),
        (["router.supervision=0"], (), "set adapter.n_subspaces, or label the rows"),
    ],
)
def test_settings_that_do_not_fit(overrides, skills, message):
    with pytest.raises(ConfigError, match=message):
        build(*overrides, skills=skills)


def test_router_may_read_the_first_edited_layer():
    assert build("router.layer=1", "adapter.layers=[1]").router is not None


def test_names_are_the_skills_where_there_is_one_for_each():
    assert build().names == SKILLS
    assert build("adapter.n_subspaces=2", "router.supervision=0").names == (
        "subspace 1",
        "subspace 2",
    )


@pytest.mark.parametrize(
    ("router", "exists"),
    [
        (RouterConfig(), True),
        (RouterConfig(gates="oracle"), False),
        (RouterConfig(gates="uniform"), False),
        (RouterConfig(gates="oracle", supervision=1.0), True),
    ],
)
def test_a_router_exists_when_it_decides_or_is_taught(router, exists):
    assert (make_adapter(router=router).router is not None) == exists


def test_the_start_is_a_function_of_the_seed():
    one, two, other = build(), build(), build("train.seed=1")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    (layer,) = one.spec.adapter.layers
    assert not torch.equal(one.at(layer).raw, other.at(layer).raw)


def test_dropout_seeds_differ_between_steps_layers_and_groups():
    adapter = make_adapter(layers=(0, 1, 2), positions="f2+l2", tied=False)
    seen = set()
    for seed in range(3):
        adapter.set_dropout_seed(seed)
        seen |= {adapter.at(layer).dropout_seed + group for layer in (0, 1, 2) for group in (0, 1)}
    assert len(seen) == 18


def test_settings_are_kept_in_the_file(tmp_path):
    config = Config(adapter=AdapterConfig(rank=3, layers=(0, 1)), router=RouterConfig(hidden=5))
    adapter = build_adapter(
        config, d_model=32, n_layers=3, skills=SKILLS, base_fingerprint="f" * 64
    )
    save_adapter(adapter, tmp_path / "a.safetensors")
    moved = shutil.copy(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    spec = load_adapter(moved).spec
    assert (spec.adapter, spec.router) == (config.adapter, config.router)
    assert spec.base_fingerprint == "f" * 64


@pytest.mark.parametrize(
    "claims",
    [
        {"adapter": {"rank": 10**6, "constraint": "none", "form": "noreft"}},
        {"adapter": {"rank": 10**30, "constraint": "none", "form": "noreft"}},
        {"router": {"hidden": 10**9}},
        {"d_model": 10**9},
        {"adapter": {"layers": list(range(2000))}, "n_layers": 2000},
        {"names": [f"s{i}" for i in range(10**4)], "adapter": {"constraint": "none"}},
    ],
    ids=["rank", "huge rank", "router", "width", "layers", "names"],
)
def test_a_small_file_that_asks_for_much_is_refused_before_it_gets_it(tmp_path, claims):
    """27 kB once asked for 32 GB, and shapes were compared afterwards."""
    path = tmp_path / "adapter.safetensors"
    save_adapter(make_adapter(), path)
    metadata, tensors = read_adapter_file(path)
    tree = json.loads(metadata["csreft"])
    for name, value in claims.items():
        tree[name] = {**tree[name], **value} if isinstance(value, dict) else value
    save_file(tensors, path, metadata={"csreft": json.dumps(tree)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AdapterError, match=r"asks for \d+ numbers or more, but it holds \d+"):
        load_adapter(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # in KiB
