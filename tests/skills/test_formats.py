"""Reading files of rows: each form, and each way a file can be wrong."""

import json
from pathlib import Path

import pytest

from csreft_core.errors import SkillSetError
from csreft_core.skills.formats.json_records import MAX_RECORD_BYTES
from csreft_core.skills.formats.kept_rows import kept_rows
from csreft_core.skills.formats.rows import Row, read_rows

pytestmark = pytest.mark.fast

GOOD = {"skill": "a", "prompt": "p", "response": "r", "split": "train"}


def rows(path: Path, **options: str) -> list[Row]:
    return [item.row for item in read_rows(path, **options).rows]


def save(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def jsonl(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_native_rows(tmp_path):
    text = jsonl(
        GOOD,
        {**GOOD, "skill": ["a", "b"], "split": "test_two_skills", "note": 1},
        {"prompt": " p\n", "response": " ü\u2028x "},
        {**GOOD, "skill": None, "split": None},
    )
    assert rows(save(tmp_path / "x.jsonl", text)) == [
        Row(("a",), "p", "r", "train"),
        Row(("a", "b"), "p", "r", "test_two_skills"),
        Row((), "p", "ü\u2028x", ""),
        Row((), "p", "r", ""),
    ]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("    return x\n    pass\n", "    return x\n    pass"),  # code stays indented
        ("\treturn x", "\treturn x"),
        ("\n\n  a\n  b", "  a\n  b"),
        (" a", "a"),  # as some files begin every answer
        ("  \n a \n", "a"),
    ],
)
def test_a_first_line_stays_indented(tmp_path, written, kept):
    path = save(tmp_path / "x.jsonl", jsonl({**GOOD, "response": written}))
    assert rows(path) == [Row(("a",), "p", kept, "train")]


@pytest.mark.parametrize("change", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n\n")])
def test_marks_line_ends_and_empty_lines_do_not_matter(tmp_path, change):
    path = save(tmp_path / "x.jsonl", change(jsonl(GOOD, GOOD)))
    assert rows(path) == [Row(("a",), "p", "r", "train")] * 2


def test_places_count_empty_lines(tmp_path):
    path = save(tmp_path / "x.jsonl", "\n" + jsonl(GOOD))
    assert [item.where for item in read_rows(path).rows] == [f"{path}:2"]


def test_another_column_for_the_skill(tmp_path):
    path = save(tmp_path / "x.jsonl", jsonl({"art": "t", "prompt": "p", "response": "r"}))
    assert rows(path, skill_column="art")[0].skills == ("t",)
    assert rows(path)[0].skills == ()
    assert read_rows(path).notes == (f"{path}:1: the field 'art' is not used",)
    with pytest.raises(SkillSetError, match=r"'tusk'.*art, prompt"):
        rows(path, skill_column="tusk")


def test_alpaca(tmp_path):
    records = [
        {"instruction": "i", "input": "x", "output": "o", "skill": "a"},
        {"instruction": "i", "input": "", "output": "o"},
        {"instruction": "i", "output": "o"},
    ]
    expected = [Row(("a",), "i\nx", "o", ""), Row((), "i", "o", ""), Row((), "i", "o", "")]
    assert rows(save(tmp_path / "x.json", json.dumps(records, indent=1))) == expected
    assert rows(save(tmp_path / "y.json", jsonl(*records))) == expected


def test_chat(tmp_path):
    def chat(*turns: str) -> dict:
        roles = {"s": "system", "u": "user", "a": "assistant"}
        return {"messages": [{"role": roles[turn[0]], "content": turn} for turn in turns]}

    path = save(
        tmp_path / "x.jsonl",
        jsonl(chat("u1", "a1"), chat("s", "u1", "a1", "u2", "a2", "u3"), chat("s", "u", "a")),
    )
    assert rows(path) == [
        Row((), "u1", "a1", ""),
        Row((), "system: s\nuser: u1\nassistant: a1\nuser: u2", "a2", ""),
        Row((), "system: s\nuser: u", "a", ""),
    ]


def test_csv(tmp_path):
    text = (
        "prompt,response,skill,split\n"
        '"p, q","two\nlines",a,train\n'
        '[p],NaN,"[""a"", ""b""]",\n'
        "p,r,,\n"
    )
    path = save(tmp_path / "x.csv", text)
    assert rows(path) == [
        Row(("a",), "p, q", "two\nlines", "train"),
        Row(("a", "b"), "[p]", "NaN", ""),
        Row((), "p", "r", ""),
    ]


def test_a_row_may_name_its_item(tmp_path):
    """Units of intervals: a text or a number; files of before have none."""
    rows_of = [GOOD | {"item": "dog"}, GOOD | {"item": 7}, GOOD | {"item": ""}, GOOD]
    found = rows(save(tmp_path / "x.jsonl", jsonl(*rows_of)))
    assert [row.item for row in found] == ["dog", "7", "", ""]
    assert rows(save(tmp_path / "x.csv", "prompt,response,item\np,r,dog\np,r,\n"))[0].item == "dog"
    odd = read_rows(save(tmp_path / "y.jsonl", jsonl(GOOD | {"item": ["dog"]})))
    assert odd.rows[0].row.item == ""
    assert "the field 'item' is not used" in odd.notes[0]
    assert kept_rows(tmp_path / "x.jsonl")[0].item == "dog"


def test_a_folder_has_a_file_for_each_skill(tmp_path):
    bare = {"prompt": "p", "response": "r"}
    save(tmp_path / "b.jsonl", jsonl(bare))
    save(tmp_path / "a.csv", "prompt,response\np,r\n")
    save(tmp_path / "c.json", json.dumps([{**bare, "skill": "own"}]))
    save(tmp_path / "notes.txt", "no rows")
    save(tmp_path / ".d.jsonl", "hidden")
    assert [row.skills for row in rows(tmp_path)] == [("a",), ("b",), ("own",)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.jsonl", "", "is empty"),
        ("x.jsonl", " \n\n", "is empty"),
        ("x.csv", "prompt,response\n", "has no rows"),
        ("x.json", "[]", "has no rows"),
        ("x.txt", "p", "ends in"),
        ("x.jsonl", jsonl(GOOD).encode("utf-16"), "UTF-16"),
        ("x.jsonl", jsonl(GOOD).encode("utf-16-le"), "x.jsonl:1: has a NUL byte"),
        ("x.jsonl", jsonl(GOOD).encode() + b"\xff\n", "x.jsonl:2: is not UTF-8"),
        ("x.jsonl", jsonl(GOOD) + '{"prompt": \n', "x.jsonl:2: is not JSON"),
        ("x.json", '[{"prompt": "p"},\n{]', "x.json:2, item 2: is not JSON"),
        ("x.json", "[" * 100_000, "is nested too deeply"),
        ("x.jsonl", jsonl(GOOD, [1]), "x.jsonl:2, item 1: expected a JSON object"),
        ("x.json", "[1]", "x.json:1, item 1: expected a JSON object"),
        ("x.jsonl", '{"prompt": NaN}', "x.jsonl:1: NaN"),
        ("x.jsonl", '{"response": -Infinity}', "x.jsonl:1: -Infinity"),
        ("x.jsonl", jsonl({**GOOD, "prompt": "p" * MAX_RECORD_BYTES}), "longer than 1 MB"),
        ("x.jsonl", jsonl({"question": "p"}), "'answer' is missing; found question"),
        ("x.jsonl", jsonl({"prompt": "p"}), "'response' is missing"),
        ("x.jsonl", jsonl({"instruction": "p"}), "'output' is missing"),
        ("x.jsonl", jsonl({**GOOD, "prompt": " "}), "x.jsonl:1: field 'prompt' is empty"),
        ("x.jsonl", jsonl({**GOOD, "response": ""}), "field 'response' is empty"),
        ("x.jsonl", jsonl({**GOOD, "response": True}), "'response': expected a text, got true"),
        ("x.jsonl", jsonl({**GOOD, "prompt": "a\0b"}), "NUL character"),
        ("x.jsonl", '{"prompt": "\\ud800", "response": "r"}', "half a character"),
        ("x.jsonl", jsonl({**GOOD, "split": "tran"}), "split.*mean 'train'.*got .tran"),
        ("x.jsonl", jsonl({**GOOD, "split": ["train"]}), "split.*expected a split, one of"),
        ("x.jsonl", jsonl({**GOOD, "skill": False}), "'skill': expected a skill's name"),
        ("x.jsonl", jsonl({**GOOD, "skill": []}), "'skill': expected a skill's name"),
        ("x.jsonl", jsonl({**GOOD, "skill": ["a", None]}), "'skill': expected a skill's name"),
        ("x.jsonl", jsonl({**GOOD, "skill": ["a", "a"]}), "names a skill twice"),
        ("x.jsonl", jsonl({**GOOD, "skill": " "}), "'skill' is empty"),
        ("x.jsonl", jsonl({"messages": "hi"}), "'messages': expected a list"),
        ("x.jsonl", jsonl({"messages": []}), "expected a message of the user"),
        ("x.jsonl", jsonl({"messages": [{"role": "user"}]}), "message 1: expected the texts"),
        ("x.jsonl", jsonl({"instruction": "i", "input": [1], "output": "o"}), "'input'"),
        ("x.csv", "frage,antwort\np,r\n", "x.csv:2: field 'prompt' is missing.*map them"),
        ("x.csv", "prompt,response\np\n", "x.csv:2: expected 2 cells"),
        ("x.csv", "prompt,response\np,r,s\n", "x.csv:2: expected 2 cells"),
        ("x.csv", 'prompt,response\n"p,r\n', "is not CSV"),
        ("x.csv", "prompt,response\np,\n", "x.csv:2: field 'response' is empty"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, name, content, words):
    path = save(tmp_path / name, content)
    with pytest.raises(SkillSetError, match=words) as caught:
        read_rows(path)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / name))
    assert "\n" not in message
    assert len(message) < len(str(tmp_path)) + 300


def test_missing_files(tmp_path):
    with pytest.raises(SkillSetError, match="no such file"):
        read_rows(tmp_path / "x.jsonl")
    with pytest.raises(SkillSetError, match=r"the folder has no \.jsonl"):
        read_rows(tmp_path)
