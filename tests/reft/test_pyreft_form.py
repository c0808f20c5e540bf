"""pyreft's form: what we write another reader reads, and what pyreft wrote we read."""

import json
import pickle
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch

from csreft_core.attachment.attach import attach
from csreft_core.config import RouterConfig
from csreft_core.errors import AdapterError
from csreft_core.reft.pyreft_form import DESCRIPTION, export_pyreft, import_pyreft
from tests.tiny import make_adapter, padded, tiny_base, tokens

NO_ROUTER = RouterConfig(gates="uniform")
SETTINGS = [
    {"constraint": "joint"},
    {"constraint": "within", "positions": "f2+l2", "tied": False},
    {"constraint": "sequential", "rank": 8},
    {"constraint": "fixed"},
    {"constraint": "none"},
    {"form": "direft", "constraint": "within"},
    {"form": "direft", "constraint": "none"},
    {"form": "noreft", "constraint": "none", "layers": (0, 2)},
]


def single(base=None, **settings):
    return make_adapter(base, k=1, router=NO_ROUTER, **{"layers": (0, 1), **settings})


def logits(base, adapter):
    with torch.no_grad(), attach(base, adapter):
        return base.model(**padded(tokens(5, 8))).logits


@pytest.mark.parametrize("settings", SETTINGS)
def test_round_trip_gives_the_same_logits(tiny_llama, tmp_path, settings):
    base = tiny_base(tiny_llama)
    adapter = single(base, **settings)
    export_pyreft(adapter, tmp_path / "out")
    imported = import_pyreft(tmp_path / "out")
    assert imported.spec == adapter.spec
    assert torch.equal(logits(base, imported), logits(base, adapter))
    assert not torch.equal(logits(base, adapter), logits(base, single(base, seed=5, **settings)))


@pytest.mark.parametrize("settings", SETTINGS)
def test_round_trip_gives_the_same_tensors(tmp_path, settings):
    adapter = single(**settings)
    export_pyreft(adapter, tmp_path / "out")
    imported = import_pyreft(tmp_path / "out")
    with torch.no_grad():
        for layer in adapter.layers:
            ours, back = adapter.at(layer), imported.at(layer)
            assert torch.equal(ours.W, back.W)
            assert torch.equal(ours.b, back.b)
            assert torch.equal(ours.basis(), back.basis())


def test_a_second_export_writes_the_same_tensors(tmp_path):
    export_pyreft(single(), tmp_path / "one")
    export_pyreft(import_pyreft(tmp_path / "one"), tmp_path / "two")
    for path in (tmp_path / "one").glob("*.bin"):
        one = torch.load(path, weights_only=True)
        two = torch.load(tmp_path / "two" / path.name, weights_only=True)
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_an_independent_reader_of_the_layout_makes_the_same_edit(tmp_path):
    """LoReFT as pyreft computes it, from its three keys alone."""
    adapter = single(rank=3, positions="f2+l2", tied=False)
    export_pyreft(adapter, tmp_path / "out")
    h = torch.randn(4, 32, generator=torch.Generator().manual_seed(3))
    names = sorted(path.name for path in (tmp_path / "out").glob("*.bin"))
    assert names == [
        f"intkey_layer.{layer}.comp.block_output.unit.pos.nunit.1#{group}.bin"
        for layer in (0, 1)
        for group in (0, 1)
    ]
    for name in names:
        layer, group = int(name[13]), int(name[-5])
        saved = torch.load(tmp_path / "out" / name, weights_only=True)
        assert {key: tuple(t.shape) for key, t in saved.items()} == {
            "weight": (3, 32),
            "bias": (3,),
            "rotate_layer": (32, 3),
        }
        columns = saved["rotate_layer"]
        torch.testing.assert_close(columns.T @ columns, torch.eye(3), atol=1e-5, rtol=0)
        edited = torch.nn.functional.linear(h, saved["weight"], saved["bias"]) - h @ columns
        expected = edited @ columns.T
        delta = adapter.at(layer)(h, torch.ones(4, 1), group)
        torch.testing.assert_close(delta, expected, atol=1e-5, rtol=1e-5)
        assert delta.abs().max() > 0.1


def strip(folder: Path, rename=None, change=None) -> Path:
    """Leave what pyreft alone would have written."""
    (folder / DESCRIPTION).unlink()
    for path in list(folder.glob("*.bin")):
        tensors = torch.load(path, weights_only=True)
        torch.save(change(tensors) if change else tensors, path)
        if rename:
            path.rename(folder / rename(path.name))
    return folder


def underscores(name: str) -> str:
    return name.replace(".", "_").replace("_bin", ".bin")


def by_path(name: str) -> str:
    """The name when pyreft is told `component="model.layers[1].output"`."""
    return f"intkey_comp.model.layers[{name[13]}].output{name[name.index('.unit') :]}"


@pytest.mark.parametrize("rename", [None, underscores, by_path])
@pytest.mark.parametrize("tied", [True, False])
def test_a_folder_that_pyreft_wrote(tiny_llama, tmp_path, rename, tied):
    base = tiny_base(tiny_llama)
    adapter = single(base, positions="f2+l2", tied=tied, rank=3)
    export_pyreft(adapter, tmp_path / "out")
    folder = strip(tmp_path / "out", rename)
    imported = import_pyreft(
        folder, n_layers=3, base_fingerprint=base.fingerprint, positions="f2+l2"
    )
    assert imported.spec.adapter.layers == (0, 1)
    assert (imported.spec.adapter.rank, imported.spec.adapter.tied) == (3, tied)
    assert torch.equal(logits(base, imported), logits(base, adapter))


def free_keys(tensors):
    """As pyreft's Noreft and Nodireft save them."""
    return {
        "learned_source.weight": tensors["weight"],
        "learned_source.bias": tensors["bias"],
        "proj_layer.weight": tensors["rotate_layer"].T.contiguous(),
    }


def half(tensors):
    """pyreft's own default type of W and b."""
    return {key: t if key == "rotate_layer" else t.bfloat16() for key, t in tensors.items()}


@pytest.mark.parametrize(
    ("settings", "change", "constraint"),
    [
        ({"form": "noreft", "constraint": "none"}, free_keys, "none"),
        ({"form": "direft", "constraint": "none"}, free_keys, "none"),
        ({"form": "direft", "constraint": "within"}, None, "within"),
        ({"form": "loreft", "constraint": "within"}, half, "within"),
    ],
)
def test_other_classes_of_pyreft(tmp_path, settings, change, constraint):
    adapter = single(**settings)
    if constraint == "none":
        with torch.no_grad():
            for layer in adapter.layers:
                adapter.at(layer).raw.mul_(3.0)
    export_pyreft(adapter, tmp_path / "out")
    imported = import_pyreft(
        strip(tmp_path / "out", change=change),
        n_layers=3,
        base_fingerprint="0" * 64,
        positions="l1",
        form=settings["form"],
    )
    assert imported.spec.adapter.constraint == constraint
    W = adapter.at(0).W.bfloat16().float() if change is half else adapter.at(0).W
    assert torch.equal(imported.at(0).W, W)
    with torch.no_grad():
        assert torch.equal(imported.at(0).basis(), adapter.at(0).basis())


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        (
            lambda: make_adapter(k=2, router=NO_ROUTER),
            r"has 2 subspaces; train with adapter\.n_subspaces=1",
        ),
        (lambda: make_adapter(k=1), r"no gates.*train with router\.gates=uniform"),
        (lambda: single(form="lobireft"), "needs W, but form 'lobireft' has no W; train"),
        (lambda: single(form="consreft", init="random"), "form 'consreft' has no W"),
    ],
)
def test_what_the_form_cannot_hold(tmp_path, adapter, message):
    with pytest.raises(AdapterError, match=message):
        export_pyreft(adapter(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_export_overwrites_nothing(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    for target in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(AdapterError, match="new or empty folder; choose another name"):
            export_pyreft(single(), target)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


@pytest.fixture
def folder(tmp_path) -> Path:
    export_pyreft(single(), tmp_path / "out")
    return tmp_path / "out"


def first(folder: Path) -> Path:
    return min(folder.glob("*.bin"))


def drop_bias(tensors):
    return {key: t for key, t in tensors.items() if key != "bias"}


def not_transposed(tensors):
    return {**tensors, "rotate_layer": tensors["rotate_layer"].T.contiguous()}


def not_finite(tensors):
    return {**tensors, "bias": tensors["bias"] * float("nan")}


def whole_numbers(tensors):
    return {**tensors, "bias": tensors["bias"].long()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_bias, "bias is missing; only pyreft's Loreft"),
        (whole_numbers, "bias is missing"),
        (lambda _: [1, 2], "weight is missing"),
        (not_transposed, r"rotate_layer \[d, r\], got .*rotate_layer \[2, 32\]; save it again"),
        (not_finite, "not finite; train again"),
    ],
)
def test_damaged_tensors(folder, change, message):
    torch.save(change(torch.load(first(folder), weights_only=True)), first(folder))
    with pytest.raises(AdapterError, match=message):
        import_pyreft(folder)


class Trap:
    """Unpickling it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickled_code_is_never_run(folder, tmp_path):
    trap = tmp_path / "sprung"
    torch.save({"weight": Trap(trap)}, first(folder))
    with pytest.raises(AdapterError, match="holds more than tensors"):
        import_pyreft(folder)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Trap(trap)))
    assert trap.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04broken"])
def test_files_that_are_no_tensors(folder, content):
    first(folder).write_bytes(content)
    with pytest.raises(AdapterError, match="is damaged"):
        import_pyreft(folder)


def test_truncated_file(folder):
    first(folder).write_bytes(first(folder).read_bytes()[:-100])
    with pytest.raises(AdapterError, match="is damaged"):
        import_pyreft(folder)


def test_folders_that_are_none_of_ours(tmp_path):
    with pytest.raises(AdapterError, match="no such folder"):
        import_pyreft(tmp_path / "nowhere")
    with pytest.raises(AdapterError, match=r"has no file such as intkey_layer\.2"):
        import_pyreft(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: first(f).unlink(), r"fails at intkey_layer\.0.*copy the whole folder"),
        (lambda f: first(f).rename(f / first(f).name.replace("#0", "#1")), "fails at"),
        (
            lambda f: first(f).rename(f / first(f).name.replace("block_output", "mlp_output")),
            "expected an edit of a block's output",
        ),
        (lambda f: (f / DESCRIPTION).unlink(), "give n_layers, base_fingerprint and positions"),
        (lambda f: (f / DESCRIPTION).write_text("{"), "cannot be read"),
        (lambda f: (f / DESCRIPTION).write_text("[]"), "cannot be read"),
        (lambda f: (f / DESCRIPTION).write_bytes(b"\xff\xfe"), "cannot be read"),
        (lambda f: edit_description(f, schema_version=99), "schema_version is 99"),
        (lambda f: edit_description(f, adapter={"extra": 1}), "cannot be read"),
        (lambda f: edit_description(f, d_model=64), r"has weight \[2, 32\], expected \[2, 64\]"),
        (lambda f: edit_description(f, n_layers=1), "but the base has layers 0 to 0"),
        (lambda f: edit_description(f, names=["a", "b"]), "has 2 subspaces"),
    ],
)
def test_inconsistent_folders(folder, change, message):
    change(folder)
    with pytest.raises(AdapterError, match=message):
        import_pyreft(folder)


def edit_description(folder: Path, **changes) -> None:
    path = folder / DESCRIPTION
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"positions": "somewhere"}, "positions 'somewhere': expected 'all'"),
        ({"n_layers": 1}, "but the base has layers 0 to 0"),
        ({"form": "lobireft"}, "form 'lobireft' has no W"),
    ],
)
def test_what_the_caller_says_must_fit(folder, given, message):
    strip(folder)
    said = {"n_layers": 3, "base_fingerprint": "0" * 64, "positions": "l1", **given}
    with pytest.raises(AdapterError, match=message):
        import_pyreft(folder, **said)


def test_free_rows_are_not_taken_for_a_loreft(folder):
    strip(folder, change=lambda t: {**t, "rotate_layer": 2 * t["rotate_layer"]})
    said = {"n_layers": 3, "base_fingerprint": "0" * 64, "positions": "l1"}
    with pytest.raises(AdapterError, match="off by 3; if it is pyreft's Noreft or Nodireft"):
        import_pyreft(folder, **said)
    assert import_pyreft(folder, form="noreft", **said).spec.adapter.form == "noreft"


def repeated(tensors):
    """One number that stands for 4 TB: nothing is stored, until somebody works with it."""
    return {**tensors, "weight": torch.zeros(1, 1).expand(10**6, 10**6)}


def packed(path):
    """The same files inside, compressed: 1 GB of zeros would be 1 MB."""
    with ZipFile(path) as archive:
        inside = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name, content in inside.items():
            archive.writestr(name, content)


class Asks:
    """What torch takes for harmless: so many zeros."""

    def __reduce__(self):
        return bytearray, (2**20,)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: torch.save(repeated(torch.load(path, weights_only=True)), path),
        packed,
        lambda path: torch.save({"weight": Asks()}, path),
        lambda path: torch.save({"weight": torch.ones(2, 32)}, path, pickle_protocol=4),
        lambda path: torch.save({"weight": 1}, path, _use_new_zipfile_serialization=False),
    ],
    ids=["repeated", "packed", "zeros", "protocol 4", "old form"],
)
def test_files_that_ask_for_more_than_they_hold(folder, change):
    change(first(folder))
    with pytest.raises(AdapterError, match="is damaged, or holds more than tensors"):
        import_pyreft(folder)


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"d_model": 10**9}, "expected .*1000000000"),
        ({"router": {"supervision": 1.0, "hidden": 10**9, "gates": "uniform"}}, "has no gates"),
    ],
)
def test_a_description_that_asks_for_more_than_the_files_hold(folder, claims, message):
    edit_description(folder, **claims)
    with pytest.raises(AdapterError, match=message):
        import_pyreft(folder)
