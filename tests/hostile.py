"""A run in which every text that comes from outside tries to be more than a text."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from streamlit.testing.v1 import AppTest

from csreft_core.config import PLAIN_TEMPLATE, Provenance, preset
from csreft_core.reft.adapter import build_adapter, save_adapter
from csreft_core.runs.all_runs import Run, create_run
from csreft_core.skills.skill_set import Row, SkillSet
from tests.page_runs import records

IMAGE = "![x](http://evil.example/x.png)"
TAG = '<img src="http://evil.example/y.png">'
LINK = "[a](javascript:alert(1)) www.evil.example"
FORMULA = r"$\href{http://evil.example}{z}$"
ICON = ":material/skull: :red[e] :streamlit: `f`"
EVERYTHING = f"{IMAGE} {TAG} {LINK} {FORMULA} {ICON}"
# No slash can stand in a folder's name; Markdown reads an entity as one.
FOLDER = "![x](http:&sol;&sol;evil.example&sol;z.png) :red[e]"
SKILLS = (f"french {IMAGE}", f"category {TAG}", f"plural {LINK} {FORMULA}", f"spelling {ICON}")

_MARKDOWN = re.compile(
    r"(?<!\\)(!\[x|\[a\]\(javascript|\$\\href|:material/skull|:red\[e|:streamlit:|<img src)"
)
_HTML = re.compile(r"<img src|<a href")
_CODE = re.compile(r"(?<!\\)(`+).+?(?<!`)\1(?!`)")
# What Streamlit draws as it is: (element, field). Everything else is read as Markdown.
_PLAIN = {
    ("code", "code_text"),
    ("text_input", "value"),
    ("text_input", "default"),
    ("text_area", "value"),
    ("selectbox", "options"),
    ("selectbox", "raw_value"),
    ("multiselect", "options"),
    ("page_link", "query_string"),
    ("plotly_chart", "alt"),
}
_AS_HTML = {("html", "body"), ("plotly_chart", "spec")}


def rows() -> SkillSet:
    """Ten rows a skill and split; the prompts begin with words that the shipped base knows."""
    numbers = count()
    made = [
        Row((skill,), f"What is the plural of dog {next(numbers)} {EVERYTHING}?", IMAGE, split)
        for skill in SKILLS
        for split in ("train", "validation", "test_items")
        for _ in range(3)
    ]
    return SkillSet(tuple(made), SKILLS)


def hostile_run(root: Path, base_fingerprint: str, *, name: str = FOLDER) -> Run:
    """A failed run of the recommended preset, with such names, prompts, answers and message."""
    provenance = Provenance(base_fingerprint=base_fingerprint, template=PLAIN_TEMPLATE, versions={})
    config = preset("recommended")
    config = replace(config, provenance=provenance, train=replace(config.train, steps=4))
    run = create_run(root / name, config, rows())
    for record in records(skills=SKILLS):
        run.append_metric(record)
    adapter = build_adapter(
        config, d_model=128, n_layers=6, skills=SKILLS, base_fingerprint=base_fingerprint
    )
    save_adapter(adapter, run.adapter_path)
    run.log_path.write_text(EVERYTHING, encoding="utf-8")
    run.write_status(replace(run.status(), state="failed", step=2, message=EVERYTHING))
    return run


def not_drawn_as_text(app: AppTest) -> list[str]:
    """Where a page would draw a hostile text as more than a text."""
    found = []
    for node in app._tree:
        proto = getattr(node, "proto", None)
        for field, text in _strings(proto) if isinstance(proto, Message) else ():
            place = (node.type, field.partition(".")[0])
            if place in _PLAIN or field == "id":
                continue
            drawn = _drawn(text) if place in _AS_HTML else _CODE.sub("", text)
            mark = (_HTML if place in _AS_HTML else _MARKDOWN).search(drawn)
            if mark is not None:
                found.append(f"{node.type}.{field}: {drawn[max(0, mark.start() - 40) :][:120]}")
    return found


def _drawn(text: str) -> str:
    """What of a figure's description, or of a piece of HTML, reaches the screen."""
    if not text.startswith("{"):
        return text
    spec = json.loads(text)
    spec["layout"].pop("meta", None)  # for the page, which writes it out itself
    return json.dumps(spec, ensure_ascii=False)


def _strings(message: Message, prefix: str = "") -> Iterator[tuple[str, str]]:
    for field, value in message.ListFields():
        many = value if not isinstance(value, str | bytes | Message) else [value]
        for one in many if _is_sequence(many) else [many]:
            if isinstance(one, str):
                yield prefix + field.name, one
            elif isinstance(one, Message):
                yield from _strings(one, f"{prefix}{field.name}.")


def _is_sequence(value: Any) -> bool:
    return hasattr(value, "__iter__")
