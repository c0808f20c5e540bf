"""Uploads: every broken file is refused with a reason, and nothing is written but what is kept."""

import json
import pickle
import re
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csreft_core.app.skills.uploads import (
    MAX_BYTES,
    edited_set,
    is_kept,
    keep,
    open_upload,
    skill_set_of,
    uploads_folder,
)
from csreft_core.errors import AdapterError, CsreftError, SkillSetError
from csreft_core.reft.adapter import load_adapter
from csreft_core.skills.formats.column_mapping import ColumnMapping, suggest_mapping
from csreft_core.skills.skill_set import read_skills
from tests.app.broken_files import GOOD_JSONL, GOOD_ROWS, Bomb, broken_files

# Only the names of the cases; the paths that pickles would make differ in each test.
CASES = list(broken_files(Path("made")))


def take(name: str, data: bytes) -> Path:
    """What a page does with a file whose columns it knows."""
    return keep(skill_set_of(open_upload(name, data)))


@pytest.fixture
def place(tmp_path, tmp_runs, monkeypatch):
    """A folder in which everything happens: the runs, the working folder, the temporary files."""
    for name in ("work", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    assert uploads_folder().parent == tmp_runs
    return tmp_path


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_there_are_at_least_a_hundred_broken_files():
    assert len(CASES) >= 100


@pytest.mark.parametrize("case", CASES)
def test_a_broken_file_is_refused_and_its_sound_sibling_is_kept(place, case):
    broken = broken_files(place / "exploded")[case]
    before = listing(place)
    with pytest.raises(SkillSetError, match=broken.reason) as caught:
        take(broken.name, broken.data)
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 400
    assert listing(place) == before
    kept = take(broken.sound_name, broken.sound)
    assert listing(place) - before == {"runs/.uploads", f"runs/.uploads/{kept.name}"}
    assert re.fullmatch(r"[0-9a-f]{16}\.jsonl", kept.name)
    assert read_skills(str(kept)).rows


def test_the_pickles_of_the_broken_files_would_do_harm(place):
    exploded = place / "exploded"
    pickle.loads(broken_files(exploded)["jsonl: pickle 4"].data)
    assert exploded.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_is_named_like_an_adapter_is_refused(place, protocol):
    path = place / "adapter.safetensors"
    path.write_bytes(pickle.dumps(Bomb(place / "exploded"), protocol))
    with pytest.raises(AdapterError, match=r"adapter\.safetensors"):
        load_adapter(path)
    assert not (place / "exploded").exists()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.csv", b"prompt,response\n" + b"x" * (MAX_BYTES - 20)),
        ("x.json", b"[" * MAX_BYTES),
        # Less than the limit: tracing, and checking the types of each call, is slow.
        ("x.csv", b"," * (MAX_BYTES // 10)),
        ("x.json", b"[" + b"{}," * 20_000 + b"{}]"),
        ("x.jsonl", b"{}\n" * 20_000),
    ],
    ids=["one field", "deep", "columns", "objects", "lines"],
)
def test_a_hostile_file_needs_bounded_memory(name, data):
    tracemalloc.start()
    try:
        with pytest.raises(SkillSetError):
            skill_set_of(open_upload(name, data))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100 * len(data), f"{peak / len(data):.0f} bytes for each byte of the file"


JUNK = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(str.encode),
    st.tuples(st.sampled_from([GOOD_JSONL]), st.integers(0, 250), st.binary(max_size=4)).map(
        lambda given: given[0].encode()[: given[1]] + given[2] + given[0].encode()[given[1] :]
    ),
)


@given(JUNK, st.sampled_from([".jsonl", ".json", ".csv"]))
@settings(deadline=None, max_examples=300)
def test_whatever_is_uploaded_is_read_or_refused(data, suffix):
    said = ""
    try:
        assert skill_set_of(open_upload(f"x{suffix}", data)).split("train")
    except CsreftError as error:
        said = str(error)
    assert not said or said.startswith(f"x{suffix}")


def test_equal_content_is_kept_once_and_never_changed(place):
    first, again = take("a.jsonl", GOOD_JSONL.encode()), take("b.jsonl", GOOD_JSONL.encode())
    other = take("a.jsonl", GOOD_JSONL.replace("dogs", "dog").encode())
    assert first == again != other
    assert len(list(uploads_folder().iterdir())) == 2
    before = first.stat().st_mtime_ns, first.read_bytes()
    take("c.json", json.dumps(GOOD_ROWS).encode())
    assert (first.stat().st_mtime_ns, first.read_bytes()) == before
    assert is_kept(str(first))
    assert not is_kept(str(place / "x.jsonl"))
    assert not is_kept(str(uploads_folder() / ".." / "x.jsonl"))


CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"prompt": "p", "response": "r", "skill": "s"}, (("s",), "p", "r")),
        ({"prompt": "p", "response": "r", "task": "s"}, (("s",), "p", "r")),
        ({"instruction": "p", "input": "", "output": "r", "category": "s"}, (("s",), "p", "r")),
        ({"instruction": "p", "input": "x", "output": "r"}, ((), "p\nx", "r")),
        ({**CHAT, "topic": "s"}, (("s",), "hi", "yo")),
        ({"Question": "p", "Answer": 42}, ((), "p", "42")),
        ({"question": "p", "context": "x", "answer": 1.5, "type": 3}, (("3",), "p\nx", "1.5")),
        ({"prompt": "p", "input": "x", "response": "r"}, ((), "p\nx", "r")),
    ],
)
def test_usual_columns_are_recognised(record, expected):
    (row,) = skill_set_of(open_upload("x.jsonl", json.dumps(record).encode())).rows
    assert (row.skills, row.prompt, row.response) == expected
    assert row.split == "train"


def test_other_columns_are_mapped_by_hand():
    data = b"frage,antwort,teil\np1,r1,train\np2,r2,dev\np3,r3,test\np4,r4,\n"
    upload = open_upload("x.csv", data)
    assert not upload.is_known
    assert upload.columns == ("frage", "antwort", "teil")
    assert suggest_mapping(upload.columns) == ColumnMapping()
    with pytest.raises(SkillSetError, match=r"'prompt' is missing; found frage"):
        skill_set_of(upload)
    with pytest.raises(SkillSetError, match="one for the response"):
        skill_set_of(upload, ColumnMapping(prompt="frage"))
    with pytest.raises(SkillSetError, match=r"'nein' is missing"):
        skill_set_of(upload, ColumnMapping(prompt="frage", response="nein"))
    chosen = ColumnMapping(prompt="frage", response="antwort", one_skill="s", split="teil")
    rows = skill_set_of(upload, chosen).rows
    assert [row.split for row in rows[:3]] == ["train", "validation", "test_items"]
    assert {row.skills for row in rows} == {("s",)}
    assert rows[3].split in ("train", "validation", "test_items")


def test_an_edited_table_names_row_and_column():
    rows = [{"skill": "a", "prompt": f"p{i}", "response": "r", "split": ""} for i in range(3)]
    blank = dict.fromkeys(rows[0])
    assert len(edited_set([*rows, blank]).rows) == 3
    pair = edited_set([*rows, {**rows[0], "prompt": "x", "skill": '["a", "b"]'}]).rows[3]
    assert pair.skills == ("a", "b")
    with pytest.raises(SkillSetError, match="row 2: field 'response' is empty"):
        edited_set([rows[0], {**rows[1], "response": None}])
    with pytest.raises(SkillSetError, match="row 1: field 'split'"):
        edited_set([{**rows[0], "split": "x"}])
    with pytest.raises(SkillSetError, match=r"row 2: field 'prompt'.*train row row 1"):
        edited_set([{**rows[0], "split": "train"}, {**rows[0], "split": "test_items"}])
    with pytest.raises(SkillSetError, match="has no rows"):
        edited_set([blank])
