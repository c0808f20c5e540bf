"""The texts of one record: which fields are its prompt and its answer, and what else it holds.

Every field that is not empty is used, refused by name, or remarked on; none is dropped in silence.
"""

import re
from collections.abc import Iterable
from typing import Any

from csreft_core.errors import SkillSetError
from csreft_core.skills.formats.chat_turns import (
    Say,
    Turn,
    history_turns,
    prompt_and_answer,
    turns_of,
)
from csreft_core.skills.formats.column_mapping import (
    CHATS,
    INPUTS,
    PARTNERS,
    PROMPTS,
    RESPONSES,
    SYSTEMS,
    text_pair,
)
from csreft_core.skills.formats.json_records import decode_json
from csreft_core.skills.formats.records import Record, name_list, quote, short_text
from csreft_core.skills.names import fold

_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
_PREFERENCE = ("chosen", "rejected", "accepted", "chosen_response", "rejected_response")
_CHOICES = ("choices", "options", "endings", "candidates", "alternatives")
_CHOICE = re.compile(
    r"(choice|option|opt|op|alternative|distractor|ending|sol|answer)_?[a-e1-5]|[a-e]"
)
_TOOLS = ("tools", "functions", "tool_calls", "function_call")
_REFUSED = {
    **dict.fromkeys(_MEDIA, "this project reads text alone; drop the row or the field"),
    **dict.fromkeys(
        _PREFERENCE,
        "pairs of preferred answers are not trained here; rename the wanted one to "
        "'response' and drop the other",
    ),
    **dict.fromkeys(
        _CHOICES,
        "choices are not put into the prompt by themselves; write them into the prompt, "
        "the right one into the answer, and drop the field",
    ),
    **dict.fromkeys(_TOOLS, "tool calls are not trained here; drop the rows or the field"),
}
# Beside the texts that were used, these would be lost.
_USUAL = {*PROMPTS, *INPUTS, *SYSTEMS, *CHATS, "history", "inputs"}
_PLACEHOLDER = re.compile(r"<(?:image|video|audio)>")


class Fields:
    """The fields of a record by their folded names, and which of them were used.

    Args:
        record: What was read.
        say: Called with what is not used, or used in an unusual way.
        skipped: Names that are read elsewhere: skill and split.

    Attributes:
        names: Folded name -> name, of all but the skipped ones.
        filled: Folded name -> value, of those that hold something and were not used yet.
        used: The folded names that were used, in that order: the prompt or the chat is the first.
    """

    def __init__(self, record: Record, say: Say, skipped: Iterable[str]) -> None:
        self.where, self.say, self.cells = record.where, say, record.kind == "cells"
        self.all, elsewhere = record.fields, set(skipped)
        self.names: dict[str, str] = {}
        self.filled: dict[str, Any] = {}
        self.used: list[str] = []
        for name, value in record.fields.items():
            if name in elsewhere:
                continue
            key = fold(name)
            if self.names.setdefault(key, name) != name:
                raise SkillSetError(
                    f"{self.where}: the fields {quote(self.names[key])} and {quote(name)} have "
                    "one name; rename one"
                )
            if not is_empty(value):
                self.filled[key] = value

    def first(self, usual: Iterable[str]) -> str | None:
        """The first of some folded names that holds something."""
        return next((name for name in usual if name in self.filled), None)

    def take(self, name: str) -> str:
        """The text of a folded name, which is used from now on."""
        self.used.append(name)
        return text_of(self.filled.pop(name, None), self.names[name], self.where)

    def take_list(self, name: str) -> Any:
        """The value of a folded name that holds a list; in a table of texts it is JSON."""
        self.used.append(name)
        self.filled.pop(name, None)
        value = self.all[self.names[name]]
        return decode_list(value, self.where) if self.cells else value

    def refusal(self, name: str, reason: str) -> SkillSetError:
        """That the field of a folded name cannot be used."""
        return SkillSetError(f"{self.where}: field {quote(self.names[name])}: {reason}")

    def say_unused(self) -> None:
        """Remark on each field that holds something and was not used."""
        for name in self.filled:
            self.say(f"the field {quote(self.names[name])} is not used")


def is_empty(value: Any) -> bool:
    """Whether a field holds nothing: no value, no letter, or an empty list or object."""
    return value is None or value in ([], {}) or (isinstance(value, str) and not value.strip())


def text_of(value: Any, field: str, where: str) -> str:
    """A text as it was written, or a number as the file writes it.

    Raises:
        SkillSetError: it is none, empty, or has letters that are none.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        raise SkillSetError(f"{where}: field {quote(field)} is empty; fill it or drop the row")
    if not isinstance(value, str):
        raise SkillSetError(
            f"{where}: field {quote(field)}: expected a text, got {short_text(value)}"
        )
    if "\0" in value:
        raise SkillSetError(f"{where}: field {quote(field)}: has a NUL character; take it out")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise SkillSetError(
            f"{where}: field {quote(field)}: has half a character (\\ud800 to \\udfff)"
        )
    return without_margins(value)


def without_margins(text: str) -> str:
    """A text without empty lines and white space around it; a first line stays indented.

    A single space in front is no indentation: some files write one before every answer.
    """
    lines = text.rstrip()
    lines = lines[lines.rfind("\n", 0, len(lines) - len(lines.lstrip())) + 1 :]
    indent = lines[: len(lines) - len(lines.lstrip())]
    return lines if len(indent) > 1 or "\t" in indent else lines.lstrip()


def decode_list(value: Any, where: str) -> Any:
    """A cell of a table: a list where it is one written as JSON, else the text.

    Raises:
        SkillSetError: it begins like a list and is none.
    """
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    text = value.strip()
    items, end = decode_json(text, where)
    if end < len(text):
        raise SkillSetError(f"{where}: is not JSON (more follows the list {short_text(items)})")
    return items


def texts(fields: Fields) -> tuple[str, str]:
    """Prompt and answer of a record in a known form.

    Raises:
        SkillSetError: a text is missing, or a field that cannot be used; names it.
    """
    name = fields.first(_REFUSED)
    if name is not None:
        raise fields.refusal(name, _REFUSED[name])
    _check_label(fields)
    chat = fields.first(CHATS)
    if chat is None and text_pair(fields.names) is None:
        chat = next((name for name in CHATS if name in fields.names), None)
    prompt, answer = _from_chat(fields, chat) if chat else _from_pair(fields)
    _check_unused(fields, prompt, answer)
    match = _PLACEHOLDER.search(f"{prompt}\n{answer}")
    if match:
        fields.say(f"{match[0]} stays in the text as it is written; there is no picture or sound")
    return prompt, answer


def _check_label(fields: Fields) -> None:
    label = fields.filled.get("label")
    if label is False or (isinstance(label, str) and label.strip().lower() == "false"):
        raise fields.refusal("label", "is false: an answer that is not wanted; drop the row")


def _from_pair(fields: Fields) -> tuple[str, str]:
    pair = text_pair(fields.filled) or text_pair(fields.names)
    if pair is None:
        raise _no_texts(fields)
    question, answer = pair
    if all(isinstance(fields.filled.get(name), list) for name in pair):
        return _from_messages(fields, question, answer)
    _check_choices(fields)
    prompt, system, history = fields.take(question), _system(fields), _history(fields)
    response = fields.take(answer)
    for name in INPUTS:
        if name in fields.filled:
            prompt = f"{prompt}\n{fields.take(name)}"
            if name != "input":
                fields.say(f"the field {name!r} is put below the prompt")
    if not system and not history:
        return prompt, response
    turns = [*system, *history, Turn("user", prompt), Turn("assistant", response)]
    return prompt_and_answer(turns, question, fields.where, fields.say)


def _no_texts(fields: Fields) -> SkillSetError:
    """What is missing, in the words of the form that the record comes nearest to."""
    prompt = next((name for name in PROMPTS if name in fields.names), None)
    response = next((name for name in RESPONSES if name in fields.names), None)
    missing = PARTNERS[prompt][0] if prompt else "prompt"
    hint = ""
    if prompt is None and response is None:
        inner = [name for name, value in fields.all.items() if isinstance(value, dict)]
        hint = "; rename the fields, or map them on the page Skills"
        if inner:
            hint = f"; texts inside {quote(inner[0])} are not read, write one flat object a line"
        elif fields.cells:
            hint += "; if the first line is a row, put a line with the columns' names before it"
        elif "text" in fields.names:
            hint = "; 'text' does not say where the answer begins, give the two parts"
    return SkillSetError(
        f"{fields.where}: field {missing!r} is missing; found {name_list(fields.all)}{hint}"
    )


def _check_choices(fields: Fields) -> None:
    """See that no column holds one choice of several: `A`, `option_b`, `distractor1`."""
    for name in fields.filled:
        if _CHOICE.fullmatch(name):
            raise fields.refusal(name, _REFUSED["choices"])


def _system(fields: Fields) -> list[Turn]:
    name = fields.first(SYSTEMS)
    return [] if name is None else [Turn("system", fields.take(name))]


def _history(fields: Fields) -> list[Turn]:
    if "history" not in fields.filled:
        return []
    history = fields.take_list("history")
    return history_turns(history, fields.names["history"], fields.where, fields.say)


def _from_messages(fields: Fields, question: str, answer: str) -> tuple[str, str]:
    """Prompt and answer that are lists of messages themselves."""
    turns = [
        turn
        for name in (question, answer)
        for turn in turns_of(fields.take_list(name), name, fields.where, fields.say)
    ]
    return _plain_texts(prompt_and_answer(turns, answer, fields.where, fields.say), answer, fields)


def _from_chat(fields: Fields, chat: str) -> tuple[str, str]:
    name = fields.names[chat]
    turns = turns_of(fields.take_list(chat), name, fields.where, fields.say)
    system = _system(fields)
    if system:
        if any(t.role == "system" and t.text.strip() != system[0].text for t in turns):
            raise SkillSetError(
                f"{fields.where}: the messages and a field beside them give two system texts; "
                "drop one"
            )
        turns = [*system, *(turn for turn in turns if turn.role != "system")]
    pair = prompt_and_answer(turns, name, fields.where, fields.say)
    return _plain_texts(pair, name, fields)


def _plain_texts(pair: tuple[str, str], name: str, fields: Fields) -> tuple[str, str]:
    return text_of(pair[0], name, fields.where), text_of(pair[1], name, fields.where)


def _check_unused(fields: Fields, prompt: str, answer: str) -> None:
    """Refuse a field that usually is a part of the row and was not used.

    What stands in the row already, such as the answer of a choice, loses nothing.
    """
    partners = PARTNERS.get(fields.used[0], RESPONSES)
    for name, value in fields.filled.items():
        if name not in _USUAL and name not in partners:
            continue
        if not isinstance(value, str) or value.strip() not in f"{prompt}\n{answer}":
            beside = ", ".join(fields.names[part] for part in fields.used)
            raise fields.refusal(
                name, f"stands beside {beside}; say which is meant: rename or drop one"
            )
