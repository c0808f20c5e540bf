"""Which fields of somebody's file are the prompt, the answer, the skill and the split.

Names are compared without capitals, spaces and dashes. Where the names alone say what the texts
are, the file is read as it is; all others need a mapping, for which there is a suggestion. No I/O.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from csreft_core.skills.names import fold

CHATS = ("messages", "conversations", "conversation")
# Each name of a prompt with the names of its answer, the usual one first.
PARTNERS = {
    "prompt": ("response", "completion"),
    "instruction": ("output", "response"),
    "question": ("answer", "response"),
    "query": ("response", "answer"),
    "problem": ("solution", "answer"),
    "input": ("output",),
    "inputs": ("targets",),
}
PROMPTS = ("prompt", "instruction", "question", "query", "problem")
RESPONSES = ("response", "output", "answer", "completion", "solution")
INPUTS = ("input", "context", "passage")
SYSTEMS = ("system", "system_prompt", "system_message")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "dev": "validation",
    "val": "validation",
    "valid": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "test": "test_items",
    "testing": "test_items",
    "test_items": "test_items",
    "test_paraphrases": "test_paraphrases",
    "test_both": "test_both",
    "test_two_skills": "test_two_skills",
}

_SKILLS = ("skill", "skills", "task", "category", "subject", "topic", "type", "dataset")
_SPLITS = ("split", "partition")
# Too vague to be read without asking.
_MAYBE = {"prompt": ("text", "source"), "response": ("target", "label")}


@dataclass(frozen=True)
class ColumnMapping:
    """Where the parts of a row stand.

    Attributes:
        prompt: Column of the prompt; None where the form of the file is known, and then the texts
            are read as that form says.
        response: Column of the answer; goes with `prompt`.
        input: Column of a text that is put below the prompt, where it is not empty.
        skill: Column of the skill.
        one_skill: A skill for every row; goes before `skill`.
        split: Column of the split; without it rows get splits by a shuffle.
    """

    prompt: str | None = None
    response: str | None = None
    input: str | None = None
    skill: str | None = None
    one_skill: str | None = None
    split: str | None = None


def text_pair(names: Iterable[str]) -> tuple[str, str] | None:
    """The folded names of prompt and answer, if there are such among the given ones."""
    there = set(names)
    for prompt, responses in PARTNERS.items():
        for response in responses:
            if {prompt, response} <= there:
                return prompt, response
    prompts = [name for name in PROMPTS if name in there]
    responses = [name for name in RESPONSES if name in there]
    return (prompts[0], responses[0]) if prompts and responses else None


def known_form(columns: Sequence[str]) -> str | None:
    """How the texts of a file are read, by its columns; None where they have to be mapped."""
    names = set(map(fold, columns))
    if names & set(CHATS):
        return "chat messages"
    pair = text_pair(names)
    return None if pair is None else " and ".join(pair)


def usual_mapping(columns: Sequence[str]) -> ColumnMapping:
    """How a file is read when nothing else is said: skill and split by their usual names."""
    names = {fold(name): name for name in reversed(columns)}
    return ColumnMapping(skill=_first(_SKILLS, names), split=_first(_SPLITS, names))


def suggest_mapping(columns: Sequence[str]) -> ColumnMapping:
    """A mapping for somebody to confirm; the texts too where the form of the file is not known."""
    names = {fold(name): name for name in reversed(columns)}
    if known_form(columns):
        return usual_mapping(columns)
    prompt, response = (
        _first((*sure, *_MAYBE[part]), names)
        for part, sure in (("prompt", PROMPTS), ("response", RESPONSES))
    )
    return replace(
        usual_mapping(columns), prompt=prompt, response=response, input=_first(INPUTS, names)
    )


def _first(usual: Sequence[str], names: dict[str, str]) -> str | None:
    return next((names[name] for name in usual if name in names), None)
