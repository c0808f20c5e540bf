"""Data files in the shapes that people bring, each with what must come out of it.

A shape gives records and the rows that they mean; a container writes records as a file. Readable
shapes are written in several containers each, unreadable ones as lines and as an array, with two
sound rows before the wrong one, so that its line is known. Nothing here is random.
"""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Records = list[dict[str, Any]]
# Skills, prompt, response, and the split where the record gives one.
Expected = tuple[tuple[str, ...], str, str, str]


@dataclass(frozen=True)
class Shape:
    """Records with the rows that they mean; `noted` are the fields that a note must name."""

    records: Records
    rows: list[Expected]
    noted: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataFile:
    """One file: its rows, or what the refusal says (a regular expression)."""

    name: str
    data: bytes
    records: Records = field(default_factory=list)
    rows: list[Expected] | None = None
    noted: tuple[str, ...] = ()
    refusal: str = ""


def _row(prompt: str, response: str, *skills: str, split: str = "") -> Expected:
    return skills, prompt, response, split


def _u(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **more}


def _a(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def _s(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def _three(make: Callable[[str, str], dict[str, Any]]) -> Records:
    return [make(*pair) for pair in _PAIRS]


_PAIRS = (
    ("What is the plural of dog?", "dogs"),
    ("Translate “café, noir” into English.", "black coffee;\nno milk"),
    ("[1, 2] reversed?", "[2, 1]"),
)
_PLAIN = [_row(p, r) for p, r in _PAIRS]
_SKILLED = [_row(p, r, "plural") for p, r in _PAIRS]
_BELOW = [_row(f"{p}\nthe passage", r) for p, r in _PAIRS]
_TOLD = [_row(f"system: Be brief.\nuser: {p}", r) for p, r in _PAIRS]

# Shapes whose fields are texts alone: they can be tables as well.
FLAT: dict[str, Shape] = {
    "project": Shape(
        _three(lambda p, r: {"skill": "plural", "prompt": p, "response": r}), _SKILLED
    ),
    "project with an id": Shape(
        _three(lambda p, r: {"id": f"id-{p[:2]}", "prompt": p, "response": r}), _PLAIN, ("id",)
    ),
    "project with context": Shape(
        _three(lambda p, r: {"prompt": p, "context": "the passage", "response": r}),
        _BELOW,
        ("context",),
    ),
    "prompt, input, response": Shape(
        _three(lambda p, r: {"prompt": p, "input": "the passage", "response": r}), _BELOW
    ),
    "project with system": Shape(
        _three(lambda p, r: {"system": "Be brief.", "prompt": p, "response": r}), _TOLD, ("system",)
    ),
    "completion": Shape(_three(lambda p, r: {"prompt": p, "completion": r}), _PLAIN),
    "Alpaca": Shape(_three(lambda p, r: {"instruction": p, "input": "", "output": r}), _PLAIN),
    "Alpaca with input": Shape(
        _three(lambda p, r: {"instruction": p, "input": "the passage", "output": r}), _BELOW
    ),
    "Alpaca with text": Shape(
        _three(lambda p, r: {"instruction": p, "output": r, "text": f"### {p} ### {r}"}),
        _PLAIN,
        ("text",),
    ),
    "Alpaca with context": Shape(
        _three(lambda p, r: {"instruction": p, "context": "the passage", "output": r}),
        _BELOW,
        ("context",),
    ),
    "Dolly": Shape(
        _three(lambda p, r: {"instruction": p, "context": "", "response": r, "category": "plural"}),
        _SKILLED,
        ("category",),
    ),
    "question and answer": Shape(_three(lambda p, r: {"question": p, "answer": r}), _PLAIN),
    "OpenOrca": Shape(
        _three(lambda p, r: {"system_prompt": "Be brief.", "question": p, "response": r}),
        _TOLD,
        ("system",),
    ),
    "problem and solution": Shape(
        _three(lambda p, r: {"problem": p, "solution": r, "level": "Level 5", "type": "plural"}),
        _SKILLED,
        ("level", "type"),
    ),
    "input and output": Shape(_three(lambda p, r: {"input": p, "output": r}), _PLAIN),
    "query": Shape(
        _three(lambda p, r: {"query": p, "response": r, "source": "web"}), _PLAIN, ("source",)
    ),
    "splits by other names": Shape(
        [
            {"prompt": p, "response": r, "split": s}
            for (p, r), s in zip(_PAIRS, ("Training", "dev", "TEST"), strict=True)
        ],
        [
            _row(p, r, split=s)
            for (p, r), s in zip(_PAIRS, ("train", "validation", "test_items"), strict=True)
        ],
    ),
    "LLM-Adapters": Shape(
        _three(lambda p, r: {"instruction": p, "input": "", "output": r, "answer": "12.0"}),
        _PLAIN,
        ("answer",),
    ),
    "two forms of é": Shape(
        [
            {"skill": s, "prompt": p, "response": r}
            for (p, r), s in zip(
                _PAIRS, ("caf\u00e9", "cafe\u0301", "caf\u00e9\u200b "), strict=True
            )
        ],
        [_row(p, r, "caf\u00e9") for p, r in _PAIRS],
    ),
    "capitals": Shape(
        [
            {"skill": s, "prompt": p, "response": r}
            for (p, r), s in zip(_PAIRS, ("French", "french", "French"), strict=True)
        ],
        [_row(p, r, s) for (p, r), s in zip(_PAIRS, ("French", "french", "French"), strict=True)],
        ("'french'",),
    ),
}

_MULTI = [[_u("One?"), _a("1"), _u(p), _a(r)] for p, r in _PAIRS]
_MULTI_ROWS = [_row(f"user: One?\nassistant: 1\nuser: {p}", r) for p, r in _PAIRS]
NESTED: dict[str, Shape] = {
    "chat": Shape(_three(lambda p, r: {"messages": [_u(p), _a(r)]}), _PLAIN),
    "chat with skill": Shape(
        _three(lambda p, r: {"messages": [_u(p), _a(r)], "skill": "plural"}), _SKILLED
    ),
    "chat with system": Shape(
        _three(lambda p, r: {"messages": [_s("Be brief."), _u(p), _a(r)]}), _TOLD, ("system",)
    ),
    "chat with an empty system": Shape(
        _three(lambda p, r: {"messages": [_s(""), _u(p), _a(r)]}), _PLAIN
    ),
    "chat of several turns": Shape([{"messages": m} for m in _MULTI], _MULTI_ROWS, ("messages",)),
    "weights": Shape(
        [
            {"messages": [_u("One?"), _a("1", weight=0), *m[2:3], _a(r, weight=1)]}
            for m, (_, r) in zip(_MULTI, _PAIRS, strict=True)
        ],
        _MULTI_ROWS,
        ("messages",),
    ),
    "a last answer of weight 0": Shape(
        _three(lambda p, r: {"messages": [_u(p), _a(r, weight=1), _u("So?"), _a("No", weight=0)]}),
        _PLAIN,
        ("messages",),
    ),
    "a question at the end": Shape(
        _three(lambda p, r: {"messages": [_u(p), _a(r), _u("Why?")]}), _PLAIN, ("messages",)
    ),
    "content in parts": Shape(
        _three(lambda p, r: {"messages": [_u([{"type": "text", "text": p}]), _a(r)]}), _PLAIN
    ),
    "chat with names": Shape(
        _three(lambda p, r: {"messages": [_u(p, name="Ann"), _a(r)]}), _PLAIN, ("name",)
    ),
    "ShareGPT": Shape(
        _three(
            lambda p, r: {
                "id": "x1",
                "conversations": [{"from": "human", "value": p}, {"from": "gpt", "value": r}],
            }
        ),
        _PLAIN,
        ("id",),
    ),
    "ShareGPT with system": Shape(
        _three(
            lambda p, r: {
                "system": "Be brief.",
                "conversations": [{"from": "human", "value": p}, {"from": "gpt", "value": r}],
            }
        ),
        _TOLD,
        ("system",),
    ),
    "TRL's messages": Shape(
        _three(lambda p, r: {"prompt": [_u(p)], "completion": [_a(r)]}), _PLAIN
    ),
    "UltraChat": Shape(
        _three(lambda p, r: {"prompt": p, "prompt_id": "x", "messages": [_u(p), _a(r)]}),
        _PLAIN,
        ("prompt", "prompt_id"),
    ),
    "Alpaca with history": Shape(
        _three(
            lambda p, r: {"instruction": p, "input": "", "output": r, "history": [["One?", "1"]]}
        ),
        _MULTI_ROWS,
        ("instruction",),
    ),
    "Alpaca with system and history": Shape(
        _three(
            lambda p, r: {
                "instruction": p,
                "output": r,
                "system": "Be brief.",
                "history": [["One?", "1"]],
            }
        ),
        [_row(f"system: Be brief.\nuser: One?\nassistant: 1\nuser: {p}", r) for p, r in _PAIRS],
        ("instruction", "system"),
    ),
    "numbers": Shape(
        [
            {"question": "1 + 1?", "answer": 2},
            {"question": "1 / 2?", "answer": 0.50},
            {"question": 7, "answer": "seven", "task": 3},
        ],
        [_row("1 + 1?", "2"), _row("1 / 2?", "0.5"), _row("7", "seven", "3")],
        ("task",),
    ),
    "pairs of skills": Shape(
        [
            {"skill": ["a", "b"], "prompt": "p", "response": "r"},
            {"skill": ["b", "a"], "prompt": "q", "response": "s"},
            {"skill": "a", "prompt": "x", "response": "y"},
        ],
        [_row("p", "r", "a", "b"), _row("q", "s", "a", "b"), _row("x", "y", "a")],
    ),
    "facts of many kinds": Shape(
        _three(
            lambda p, r: {
                "prompt": p,
                "response": r,
                "meta": {"by": "Ann"},
                "ok": True,
                "score": 0.5,
                "tags": ["x"],
                "none": None,
                "nothing": [],
            }
        ),
        _PLAIN,
        ("meta", "ok", "score", "tags"),
    ),
    "a picture that is gone": Shape(
        _three(
            lambda p, r: {
                "conversations": [
                    {"from": "human", "value": f"<image>\n{p}"},
                    {"from": "gpt", "value": r},
                ]
            }
        ),
        [_row(f"<image>\n{p}", r) for p, r in _PAIRS],
        ("<image>",),
    ),
    "KTO, wanted": Shape(
        _three(lambda p, r: {"prompt": p, "completion": r, "label": True}), _PLAIN, ("label",)
    ),
}


def _lines(records: Records) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _pretty(records: Records) -> str:
    return json.dumps(records, ensure_ascii=False, indent=2)


JSON_CONTAINERS: dict[str, tuple[str, Callable[[Records], str]]] = {
    "lines": (".jsonl", _lines),
    "array": (".json", _pretty),
    "array in lines": (".jsonl", _pretty),
    "array on a line": (".jsonl", lambda r: json.dumps(r, ensure_ascii=False)),
    "pretty objects": (".jsonl", lambda r: "\n".join(json.dumps(x, indent=1) for x in r)),
    "objects on a line": (".json", lambda r: "".join(map(json.dumps, r))),
    "wrapped": (".json", lambda r: json.dumps({"data": r}, indent=1)),
    "wrapped in lines": (".jsonl", lambda r: json.dumps({"rows": r})),
    "instances": (".json", lambda r: json.dumps({"instances": r}, ensure_ascii=False)),
    "mark and line ends": (".jsonl", lambda r: "\ufeff" + _lines(r).replace("\n", "\r\n\r\n")),
    "old line ends": (".json", lambda r: _lines(r).replace("\n", "\r")),
}


def _table(records: Records, separator: str = ",", ends: str = "\n", **more: Any) -> str:
    made = io.StringIO(newline="")
    writer = csv.DictWriter(
        made, list(records[0]), delimiter=separator, lineterminator=ends, **more
    )
    writer.writeheader()
    writer.writerows(records)
    return made.getvalue()


def _with_header(change: Callable[[str], str]) -> Callable[[Records], str]:
    return lambda records: _table([{change(k): v for k, v in r.items()} for r in records])


def _with_index(records: Records) -> str:
    return _table([{"": str(i), **r} for i, r in enumerate(records)])


TABLES: dict[str, tuple[str, Callable[[Records], str]]] = {
    "commas": (".csv", _table),
    "Excel": (".csv", lambda r: "\ufeff" + _table(r, ";", "\r\n")),
    "sep line": (".csv", lambda r: "sep=;\r\n" + _table(r, ";", "\r\n")),
    "tabs": (".tsv", lambda r: _table(r, "\t")),
    "tabs as csv": (".csv", lambda r: _table(r, "\t")),
    "bars": (".csv", lambda r: _table(r, "|")),
    "all quoted": (".csv", lambda r: _table(r, quoting=csv.QUOTE_ALL)),
    "capitals": (".csv", _with_header(str.upper)),
    "spaces": (".csv", _with_header(lambda name: f" {name.replace('_', ' ')} ")),
    "old line ends": (".csv", lambda r: _table(r, ends="\r", quoting=csv.QUOTE_ALL)),
    "empty ends": (
        ".csv",
        lambda r: "\n" + _table([{**x, " ": ""} for x in r]) + ",,\n\n" + " , \n",
    ),
    "index": (".csv", _with_index),
}


def _readable() -> Iterator[tuple[str, DataFile]]:
    """Each shape in every third container, so that all containers come often."""
    for i, (shape_name, shape) in enumerate((FLAT | NESTED).items()):
        for name, (suffix, write) in list(JSON_CONTAINERS.items())[i % 3 :: 3]:
            yield f"{shape_name}: {name}", _file(suffix, write(shape.records), shape)
    for i, (shape_name, shape) in enumerate(FLAT.items()):
        for name, (suffix, write) in list(TABLES.items())[i % 3 :: 3]:
            yield f"{shape_name}: {name}", _file(suffix, write(shape.records), shape)
    cells = [{k: json.dumps(v) for k, v in r.items()} for r in NESTED["chat"].records]
    yield "chat: a table", _file(".csv", _table(cells), NESTED["chat"])


def _file(suffix: str, text: str, shape: Shape) -> DataFile:
    return DataFile(f"mine{suffix}", text.encode(), shape.records, shape.rows, shape.noted)


_GOOD = [
    {"prompt": "Plural of dog?", "response": "dogs"},
    {"prompt": "Plural of cat?", "response": "cats"},
]
_CALL = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
# A wrong record, and the field that the refusal names.
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "preference pair": ({"prompt": "p", "chosen": "good", "rejected": "bad"}, "'chosen'"),
    "preference of chats": (
        {"chosen": [_u("p"), _a("r")], "rejected": [_u("p"), _a("s")]},
        "'chosen'",
    ),
    "an answer beside a rejected one": (
        {"prompt": "p", "response": "r", "rejected": "s"},
        "'rejected'",
    ),
    "KTO, not wanted": ({"prompt": "p", "completion": "r", "label": False}, "'label'"),
    "MMLU": ({"question": "p", "choices": ["a", "b"], "answer": 1}, "'choices'"),
    "ARC": (
        {"question": "p", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "A"},
        "'choices'",
    ),
    "options": ({"question": "p", "options": ["a", "b"], "answer": "b"}, "'options'"),
    "distractors": ({"question": "p", "distractor1": "a", "answer": "b"}, "'distractor1'"),
    "picture": ({"prompt": "p", "response": "r", "image": "a.png"}, "'image'"),
    "pictures": ({"images": ["a.png"], "messages": [_u("<image>p"), _a("r")]}, "'images'"),
    "picture in parts": (
        {"messages": [_u([{"type": "image_url", "image_url": {"url": "u"}}]), _a("r")]},
        "'messages', message 1.*image_url",
    ),
    "tools": ({"messages": [_u("p"), _a("r")], "tools": [_CALL]}, "'tools'"),
    "tool calls": ({"messages": [_u("p"), _a(None, tool_calls=[_CALL])]}, "'tool_calls'"),
    "function call": (
        {"messages": [_u("p"), _a("", function_call={"name": "f"})]},
        "'function_call'",
    ),
    "tool turn": ({"messages": [_u("p"), {"role": "tool", "content": "1"}, _a("r")]}, '"tool"'),
    "observation": ({"conversations": [{"from": "observation", "value": "x"}]}, '"observation"'),
    "thoughts": (
        {"messages": [_u("p"), _a("r", reasoning_content="because")]},
        "'reasoning_content'",
    ),
    "train switch": ({"messages": [_u("p"), _a("r", train=False)]}, "'train'"),
    "nothing to train": ({"messages": [_u("p"), _a("r", weight=0)]}, "'messages'.*weight 0"),
    "half a weight": ({"messages": [_u("p"), _a("r", weight=0.5)]}, "'weight'.*0.5"),
    "empty turn": ({"messages": [_u(" "), _a("r")]}, "'messages': a message is empty"),
    "two system texts": ({"system": "x", "messages": [_s("y"), _u("p"), _a("r")]}, "system"),
    "history of texts": ({"instruction": "p", "output": "r", "history": ["x"]}, "'history'"),
    "chat beside an answer": ({"messages": [_u("p"), _a("r")], "response": "s"}, "'response'"),
    "two prompts": (
        {"instruction": "Solve", "question": "1 + 1?", "answer": "2"},
        "'instruction'.*question",
    ),
    "two answers": ({"problem": "1 + 1?", "solution": "Count.", "answer": "2"}, "'answer'"),
    "text alone": ({"text": "### Q: p ### A: r"}, "'prompt' is missing; found text"),
    "no answer": ({"prompt": "p", "source": "web"}, "'response' is missing; found prompt, source"),
    "answers of SQuAD": ({"question": "p", "context": "c", "answers": {"text": ["r"]}}, "answers"),
    "Label Studio": ({"id": 1, "data": {"text": "p"}, "annotations": [{"result": []}]}, "'data'"),
    "Argilla": ({"fields": {"prompt": "p"}, "responses": [{"value": "r"}]}, "'fields'"),
    "rows of the Hub's viewer": ({"row_idx": 0, "row": {"prompt": "p"}}, "'row'"),
    "null": ({"prompt": "p", "response": None}, "'response' is empty"),
    "true": ({"prompt": "p", "response": True}, "'response': expected a text, got true"),
    "list": ({"prompt": "p", "response": ["r", "s"]}, "'response': expected a text"),
    "list of inputs": ({"instruction": "p", "input": ["x"], "output": "r"}, "'input'"),
    "split misspelt": ({"prompt": "p", "response": "r", "split": "trian"}, "'split'.*'train'"),
    "false as skill": ({"prompt": "p", "response": "r", "skill": False}, "'skill'"),
    "object as skill": ({"prompt": "p", "response": "r", "skill": {"name": "x"}}, "'skill'"),
    "one name twice": ({"prompt": "p", "Prompt": "q", "response": "r"}, "'prompt' and 'Prompt'"),
    "unlabelled": ({"prompt": "p", "response": "r", "skill": "unlabelled"}, "'unlabelled'"),
}
_A_B = [
    {"skill": ["a", "b"], "prompt": "p", "response": "r"},
    {"skill": "a+b", "prompt": "q", "response": "s"},
]
# Whole files, their ending, and what the refusal says.
WRONG_FILES: dict[str, tuple[str, str | bytes, str]] = {
    "a name twice": (".jsonl", '{"prompt": "p", "prompt": "q"}\n', r":1: .*prompt.*twice"),
    "NaN": (".json", '[\n{"prompt": "p", "response": NaN}]', ":2, item 1: NaN"),
    "infinity": (".jsonl", _lines(_GOOD) + '{"x": -Infinity}', ":3: -Infinity"),
    "a+b": (".jsonl", _lines(_A_B), ":2: field 'skill'.*'a.b'.*:1"),
    "arrays of texts": (".jsonl", '["prompt", "response"]\n', ":1, item 1: expected a JSON object"),
    "columns": (".json", '{"prompt": {"0": "p"}, "response": {"0": "r"}}', ":1: field 'prompt'"),
    "no header": (".csv", "Plural of dog?,dogs\nof cat?,cats\n", ":2: .*first line is a row"),
    "no header, tabs": (".tsv", "Plural of dog?\tdogs\na\tb\n", ":2: .*first line is a row"),
    "two columns of one name": (".csv", "prompt,response,prompt\np,r,q\n", ":1: .*two columns"),
    "two columns but for capitals": (".csv", "prompt,response,Prompt\np,r,q\n", ":2: .*one name"),
    "two separators": (".csv", "a;b,c\n1;2,3\n", ":1: cannot tell"),
    "choices in columns": (".csv", "question,A,B,C,D,answer\nq,1,2,3,4,B\n", ":2: field 'A'"),
    "a cell more": (".csv", "prompt,response\np,r,s\n", ":2: expected 2 cells"),
    "a cell less": (".csv", "prompt;response\np;r\nq\n", ":3: expected 2 cells"),
    "a quote in a text": (".csv", 'prompt,response\n"p" q,r\n', "is not CSV"),
    "a list cut short": (".csv", 'skill,prompt,response\n"[""a",p,r\n', ":2: is not JSON"),
    "UTF-16": (".csv", "prompt\tresponse\n".encode("utf-16"), "UTF-16"),
    "Latin-1": (".csv", "prompt,response\np,\xe9\n".encode("latin-1"), ":2: is not UTF-8"),
    "parquet": (".parquet", b"PAR1", "read_parquet"),
    "Excel": (".xlsx", b"PK\x03\x04", "save the sheet as CSV"),
    "gzip": (".gz", gzip.compress(b"{}", mtime=0), "unpack it"),
    "gzip as lines": (".jsonl", gzip.compress(b"{}", mtime=0), "gzip archive"),
    "arrow": (".arrow", b"ARROW1", "load_from_disk"),
}


def _unreadable() -> Iterator[tuple[str, DataFile]]:
    for name, (record, named) in WRONG.items():
        records = [*_GOOD, record]
        place = "mine.jsonl:3: "
        yield (
            f"{name}: lines",
            DataFile("mine.jsonl", _lines(records).encode(), refusal=f"{place}.*{named}"),
        )
        pretty = _pretty(records)
        line = pretty[: pretty.rindex("\n  {") + 1].count("\n") + 1
        yield (
            f"{name}: array",
            DataFile("mine.json", pretty.encode(), refusal=f"mine.json:{line}, item 3: .*{named}"),
        )
    for name, (suffix, content, words) in WRONG_FILES.items():
        data = content.encode() if isinstance(content, str) else content
        yield name, DataFile(f"mine{suffix}", data, refusal=f"mine{suffix}.*{words}")


def data_files() -> dict[str, DataFile]:
    """All files by a name of their own."""
    return dict([*_readable(), *_unreadable()])
