"""Broken uploads: each with its name, its content, what the refusal says, and a sound sibling.

Imported by the tests alone. Nothing here is random: each file can be named in a failure.
"""

import bz2
import codecs
import gzip
import io
import json
import lzma
import pickle
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

GOOD_CSV = (
    "skill,prompt,response,split\n"
    'plural,"What is the plural, of dog?",dogs,train\n'
    "plural,What is the plural of cat?,cats,validation\n"
)
GOOD_ROWS = [
    {"skill": "plural", "prompt": "What is the plural of dog?", "response": "dogs"},
    {"skill": ["plural", "french"], "prompt": "Plural of cat in French?", "response": "chats"},
]
GOOD_JSONL = "".join(json.dumps(row) + "\n" for row in GOOD_ROWS)
GOOD_JSON = json.dumps(GOOD_ROWS, indent=1)
GOOD = {".csv": GOOD_CSV, ".jsonl": GOOD_JSONL, ".json": GOOD_JSON}


@dataclass(frozen=True)
class Broken:
    """One broken file; `sound` is the same file without the fault, and is accepted."""

    name: str
    data: bytes
    reason: str
    sound_name: str
    sound: bytes


class Bomb:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _line(**changes: object) -> str:
    return json.dumps({**GOOD_ROWS[0], **changes}) + "\n"


def _without(field: str) -> str:
    return json.dumps({k: v for k, v in GOOD_ROWS[0].items() if k != field}) + "\n"


def _zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("skills.jsonl", content)
    return packed.getvalue()


def _tarred() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("../../skills.jsonl")
        entry.size = len(GOOD_JSONL.encode())
        archive.addfile(entry, io.BytesIO(GOOD_JSONL.encode()))
    return packed.getvalue()


_ZEROS = b"0" * 6_000_000  # more than an upload may have
_DEEP = '{"a":' * 100_000
_CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}

_CSV: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "is empty"),
    "white space": ("\n \n\t\n", "is empty"),
    "header alone": ("skill,prompt,response\n", "has no rows"),
    "header of commas": (",,,\n,,,\n", "a column without a name"),
    "two prompts": ("prompt,response,prompt\na,b,c\n", "two columns named"),
    "a cell too few": (GOOD_CSV + "plural,Plural of ox?\n", ":4: expected 4 cells"),
    "a cell too many": (GOOD_CSV + "plural,Plural of ox?,oxen,train,x\n", ":4: expected 4 cells"),
    "comma in a text": (GOOD_CSV + "plural,Well, of ox?,oxen,train\n", ":4: expected 4 cells"),
    "open quote": (GOOD_CSV + 'plural,"Plural of ox?,oxen,train\n', "is not CSV"),
    "text after a quote": (GOOD_CSV + 'plural,"Plural" of ox?,oxen,train\n', "is not CSV"),
    "empty response": (GOOD_CSV + "plural,Plural of ox?,,train\n", ":4: field 'response' is empty"),
    "empty prompt": (GOOD_CSV + "plural,  ,oxen,train\n", ":4: field 'prompt' is empty"),
    "unknown split": (GOOD_CSV.replace("validation", "holdout"), ":3: .*split.*holdout"),
    "skills cut short": (GOOD_CSV + '"[""a"", ",Plural of ox?,oxen,train\n', ":4: is not JSON"),
    "skills of nothing": (GOOD_CSV + "[null],Plural of ox?,oxen,train\n", ":4: field 'skill'"),
    "deep skills": (GOOD_CSV + "[" * 50_000 + ",Plural of ox?,oxen,train\n", "nested too deeply"),
    "wrong columns": ("a,b\n1,2\n", "field 'prompt' is missing; found a, b"),
    "semicolons and commas": ("a;b,c\n1;2,3\n", ":1: cannot tell what separates the columns"),
    "sep= of another letter": ("sep=;\n" + GOOD_CSV, "is missing"),
    "a field of 4 MB": (GOOD_CSV + f"plural,{'x' * 4_000_000},y,train\n", "is not CSV"),
    "a million columns": ("," * 1_000_000 + "\n", "a column without a name"),
    "many named columns": (",".join(f"c{i}" for i in range(300_000)) + "\na\n", "expected 300000"),
    "NUL": (GOOD_CSV.replace("cats", "ca\0ts"), ":3: has a NUL byte"),
    "no training row": (GOOD_CSV.replace("train", "test_items"), "no row has the split 'train'"),
    "a leak": (
        GOOD_CSV
        + "plural,What is the plural of cat?,cats,train\n"
        + "plural,What is the plural of cat?,cats,test_items\n",
        ":5: .*the prompt of",
    ),
    "HTML": ("<!doctype html><html><body>Sign in</body></html>\n", "has no rows"),
}
_JSONL: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "is empty"),
    "cut short": (GOOD_JSONL[:-20], ":2: is not JSON"),
    "single quotes": ("{'prompt': 'a', 'response': 'b'}\n", ":1: is not JSON"),
    "trailing comma": ('{"prompt": "a", "response": "b",}\n', ":1: is not JSON"),
    "comment": ("// rows\n" + GOOD_JSONL, ":1: is not JSON"),
    "a number": ("42\n", ":1: expected a JSON object, got 42"),
    "a text": ('"hello"\n', ":1: expected a JSON object"),
    "null": ("null\n", ":1: expected a JSON object, got null"),
    "NaN": ('{"prompt": "a", "response": NaN}\n', ":1: NaN"),
    "infinity": ('{"prompt": "a", "response": -Infinity}\n', ":1: -Infinity"),
    "deep objects": (_DEEP + "\n", ":1: is nested too deeply"),
    "deep lists": ('{"prompt": ' + "[" * 100_000 + "\n", ":1: is nested too deeply"),
    "deep skill": (
        f'{{"prompt": "a", "response": "b", "skill": {"[" * 900}{"]" * 900}}}\n',
        "'skill'|nested too deeply",
    ),
    "field twice": ('{"prompt": "a", "prompt": "b", "response": "c"}\n', "'?\"?prompt.* twice"),
    "no prompt": (GOOD_JSONL + _without("prompt"), ":3: field 'prompt' is missing"),
    "no response": (GOOD_JSONL + _without("response"), ":3: field 'response' is missing"),
    "list as prompt": (_line(prompt=["a", "b"]), ":1: field 'prompt': expected a text"),
    "object as prompt": (_line(prompt={"text": "a"}), ":1: field 'prompt': expected a text"),
    "true as response": (_line(response=True), ":1: field 'response': expected a text"),
    "null as response": (_line(response=None), ":1: field 'response' is empty"),
    "empty prompt": (_line(prompt=" \n "), ":1: field 'prompt' is empty"),
    "NUL escape": (_line(prompt="a\0b"), ":1: field 'prompt': has a NUL"),
    "half a character": ('{"prompt": "\\ud83d", "response": "b"}\n', "half a character"),
    "object as skill": (_line(skill={"name": "a"}), ":1: field 'skill'"),
    "skill twice": (_line(skill=["a", "a"]), ":1: field 'skill': names a skill twice"),
    "no skill in the list": (_line(skill=[]), ":1: field 'skill'"),
    "split of a list": (_line(split=["train"]), ":1: field .*split"),
    "unknown split": (_line(split="holdout"), ":1: field .*split.*holdout"),
    "chat of texts": (json.dumps({"messages": ["hi", "yo"]}), ":1: field 'messages'"),
    "chat without answer": (json.dumps({"messages": _CHAT["messages"][:1]}), "of the assistant"),
    "chat with NUL": (json.dumps(_CHAT).replace("yo", "y\\u0000"), "NUL"),
    "Alpaca with a list": ('{"instruction": "a", "input": [1], "output": "b"}', "'input'"),
    "names with line ends": ('{"a\\nb": 1}\n', "is missing"),
    "ten thousand names": (json.dumps({f"k{i}": i for i in range(10_000)}), "and 9992 more"),
    "a line of 2 MB": (_line(prompt="x" * 2_000_000), ":1: the row is longer than 1 MB"),
    "binary between": (GOOD_JSONL.encode() + b"\xff\xfe\xfa\n", ":3: is not UTF-8"),
}
_JSON: dict[str, tuple[str | bytes, str]] = {
    "empty array": ("[]", "has no rows"),
    "array cut short": (GOOD_JSON[:-5], "is not JSON"),
    "array of numbers": ("[1, 2]", ":1, item 1: expected a JSON object"),
    "a million nulls": ("[" + ",".join(["null"] * 900_000) + "]", "item 1: expected a JSON object"),
    "array without an end": (
        GOOD_JSON.rstrip("] \n"),
        "is not JSON .expected , or ], found the end",
    ),
    "columns of lists": ('{"prompt": ["a"], "response": ["b"]}', ":1: field 'prompt'"),
    "deep array": ("[" * 2_000_000, "nested too deeply"),
}
_ENCODED: dict[str, tuple[str | bytes, str]] = {
    "UTF-16": (GOOD_JSONL.encode("utf-16"), "UTF-16"),
    "UTF-16 without mark": (GOOD_JSONL.encode("utf-16-le"), "NUL byte"),
    "UTF-16 big end": (codecs.BOM_UTF16_BE + GOOD_JSONL.encode("utf-16-be"), "UTF-16"),
    "UTF-32": (GOOD_JSONL.encode("utf-32"), "UTF-32"),
    "Latin-1": (_line(response="é").replace("\\u00e9", "é").encode("latin-1"), ":1: is not UTF-8"),
    "overlong": (GOOD_JSONL.encode() + b"\xc0\xaf\n", "is not UTF-8"),
    "encoded surrogate": (GOOD_JSONL.encode() + b"\xed\xa0\x80\n", "is not UTF-8"),
}
_DISGUISED: dict[str, tuple[bytes, str]] = {
    "zip": (_zipped(GOOD_JSONL.encode()), "zip archive"),
    "zip bomb": (_zipped(_ZEROS), "zip archive"),
    "zip in a zip": (_zipped(_zipped(_ZEROS)), "zip archive"),
    "gzip": (gzip.compress(GOOD_JSONL.encode()), "gzip archive"),
    "gzip bomb": (gzip.compress(_ZEROS), "gzip archive"),
    "bzip2": (bz2.compress(GOOD_JSONL.encode()), "bzip2 archive"),
    "xz bomb": (lzma.compress(_ZEROS), "xz archive"),
    "tar": (_tarred(), "NUL byte"),
    "parquet": (b"PAR1" + b"\x15\x00" * 40, "parquet"),
    "PDF": (b"%PDF-1.7\n1 0 obj\n", "PDF"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + b"\0" * 20, "NUL byte"),
    "program": (b"\x7fELF" + b"\0" * 60, "NUL byte"),
}
_NAMES = {
    "up": "../../x.jsonl",
    "up on Windows": "..\\..\\x.jsonl",
    "up from below": "a/../../../x.jsonl",
    "root": "/x.jsonl",
    "home": "~/x.jsonl",
    "drive": "C:\\x.jsonl",
    "drive without root": "C:x.jsonl",
    "share": "\\\\server\\x.jsonl",
    "URL": "file:///x.jsonl",
    "NUL byte": "x.jsonl\0.csv",
    "line end": "x\n.jsonl",
    "bell": "x\a.jsonl",
    "right to left": "x\u202elnosj.jsonl",
    "console": "CON.jsonl",
    "null device": "nul.jsonl",
    "port": "COM1.csv",
    "long": "x" * 300 + ".jsonl",
    "long in bytes": "é" * 200 + ".jsonl",
    "no ending": "x",
    "hidden": ".jsonl",
    "Excel": "x.xlsx",
    "pickle": "x.pkl",
    "weights": "x.safetensors",
    "two endings": "x.jsonl.exe",
}


_TOO_MANY = [_line(prompt=f"p{i}") for i in range(5_001)]
_BLANK = " " * 99 + "\n"
_PADDED = GOOD_JSONL + _BLANK * 49_000
_PADDED += " " * (5_000_000 - len(_PADDED))
_LIMITS = {
    "limit: rows": Broken(
        "mine.jsonl",
        "".join(_TOO_MANY).encode(),
        "more than 5,000 rows",
        "mine.jsonl",
        "".join(_TOO_MANY[:5_000]).encode(),
    ),
    "limit: bytes": Broken(
        "mine.json", _PADDED.encode() + b" ", "5,000,001 bytes", "mine.json", _PADDED.encode()
    ),
}


def _from(table: dict[str, tuple[str | bytes, str]], suffix: str) -> dict[str, Broken]:
    name = f"mine{suffix}"
    return {
        f"{suffix[1:]}: {key}": Broken(name, _bytes(data), reason, name, _bytes(GOOD[suffix]))
        for key, (data, reason) in table.items()
    }


def broken_files(pickled_to: Path) -> dict[str, Broken]:
    """All broken files by a name of their own.

    Args:
        pickled_to: What the pickles would make if they were loaded.
    """
    files = {
        **_from(_CSV, ".csv"),
        **_from(_JSONL, ".jsonl"),
        **_from(_JSON, ".json"),
        **_from(_ENCODED, ".jsonl"),
    }
    endings = (".jsonl", ".csv", ".json")
    for i, (key, (data, reason)) in enumerate(_DISGUISED.items()):
        files |= _from({f"{key} in disguise": (data, reason)}, endings[i % 3])
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(Bomb(pickled_to), protocol)
        reason = "pickle" if protocol >= 2 else "is not JSON|NUL byte"
        files |= _from({f"pickle {protocol}": (data, reason)}, ".jsonl")
    for key, name in _NAMES.items():
        files[f"name: {key}"] = Broken(
            name,
            GOOD_JSONL.encode(),
            r"the name of the upload|ends in",
            "x.jsonl",
            GOOD_JSONL.encode(),
        )
    return files | _LIMITS
