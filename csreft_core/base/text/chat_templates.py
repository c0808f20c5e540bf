"""The text around a prompt: a plain template, or the chat template of the base's tokeniser.

A chat template comes with the base and is a program: it runs in a process of its own (`foreign`).
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from csreft_core.base import foreign
from csreft_core.base.text.tokenisers import special_texts
from csreft_core.config import PLAIN_TEMPLATE
from csreft_core.config.templates import ANSWER, chat_settings
from csreft_core.errors import SkillSetError, UnsupportedModelError

_PROBE, _REPLY = "What is the plural of fox?", "Foxes-are-many"
_NAME = "the chat template of the base's tokeniser"


class WrittenPrompt(NamedTuple):
    """A prompt in its template.

    Attributes:
        text: All of it.
        start: Where the user's words begin in the text; -1 where the template has changed them.
        end: Where they end.
        separator: What stands between the prompt and an answer that begins without white space.
    """

    text: str
    start: int
    end: int
    separator: str


def resolve_template(template: str, tokenizer: Any) -> str:
    """`chat` (with its settings, if any) or a text with {prompt}, from what the config says.

    Args:
        template: `auto` takes the tokeniser's chat template if there is one, else the plain one.
        tokenizer: A Hugging Face tokeniser.

    Raises:
        SkillSetError: `chat` is asked for and the tokeniser has no such chat template.
    """
    if template == "auto":
        template = "chat" if getattr(tokenizer, "chat_template", None) else PLAIN_TEMPLATE
    settings = chat_settings(template)
    if settings is not None:
        _source(tokenizer, settings)
    return template


def _source(tokenizer: Any, settings: dict[str, Any]) -> str:
    """The chat template, out of several the one that is named."""
    source = getattr(tokenizer, "chat_template", None)
    if not source:
        raise SkillSetError(
            "data.template is 'chat', but the base's tokeniser has no chat template; use 'auto'"
        )
    name = settings.get("template")
    if isinstance(source, str) and name is None:
        return source
    by_name = {"default": source} if isinstance(source, str) else source
    if (name or "default") not in by_name:
        raise SkillSetError(
            f"the base's tokeniser has no chat template named {name or 'default'!r}, only "
            f"{', '.join(sorted(by_name))}; choose one, such as data.template="
            f"'chat {json.dumps({'template': min(by_name)})}', or give a text with {{prompt}}"
        )
    return by_name[name or "default"]


def written_prompts(prompts: Sequence[str], tokenizer: Any, template: str) -> list[WrittenPrompt]:
    """Each prompt in its template.

    Args:
        prompts: The users' texts.
        tokenizer: A Hugging Face tokeniser.
        template: A resolved template.

    Raises:
        SkillSetError: there is no such chat template.
        UnsupportedModelError: the chat template fails.
    """
    settings = chat_settings(template)
    if settings is not None:
        return _chats(prompts, tokenizer, settings)
    start = template.find("{prompt}")
    separator = _separator(template, tokenizer)
    template = template.removesuffix(ANSWER)
    return [
        WrittenPrompt(template.replace("{prompt}", p), start, start + len(p), separator)
        for p in prompts
    ]


def _separator(template: str, tokenizer: Any) -> str:
    """A space, as behind a colon; nothing behind white space, a special token or by wish."""
    behind = template.endswith((ANSWER, *special_texts(tokenizer)))
    return "" if behind or template[-1:].isspace() else " "


def _chats(prompts: Sequence[str], tokenizer: Any, settings: dict[str, Any]) -> list[WrittenPrompt]:
    if not prompts:
        return []
    source, names = _source(tokenizer, settings), _names(tokenizer, settings)
    system = settings.get("system")
    header, separator = _behind(source, json.dumps(names, sort_keys=True), system)
    chats = []
    for prompt, text in zip(
        prompts, _render(source, [_chat(names, system, p) for p in prompts]), strict=True
    ):
        words = prompt.strip()  # chat templates may strip the message
        start = text.rfind(words)
        end = start + len(words) if start >= 0 else -1
        chats.append(WrittenPrompt(text + header, start, end, separator))
    return chats


def _names(tokenizer: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """What the template may use beside the messages."""
    variables = {
        name: value for name, value in settings.items() if name not in ("system", "template")
    }
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return {"tools": None, "documents": None, "add_generation_prompt": True, **special, **variables}


def _chat(names: dict[str, Any], system: str | None, *turns: str) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}] if system is not None else []
    for place, text in enumerate(turns):
        messages.append({"role": "assistant" if place % 2 else "user", "content": text})
    return {**names, "messages": messages}


def _render(source: str, chats: list[dict[str, Any]]) -> list[str]:
    try:
        return foreign.ask("render", source, chats, name=_NAME)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(
            f"{error}; set data.template to a text with {{prompt}}, or give what it asks for, such "
            'as chat {"system": "You are helpful."}'
        ) from None


@lru_cache(maxsize=64)
def _behind(source: str, names: str, system: str | None) -> tuple[str, str]:
    """What stands between a prompt and its answer: the head of the answer's turn, and white space.

    Asked for the head (`add_generation_prompt`), some templates give none. Then it is taken from
    how the template writes an answer; without it the base would have to write the head itself.
    """
    variables = json.loads(names)
    (head,) = _render(source, [_chat(variables, system, _PROBE)])
    try:
        bare, dialogue = _render(
            source,
            [
                _chat({**variables, "add_generation_prompt": False}, system, *turns)
                for turns in ((_PROBE,), (_PROBE, _REPLY))
            ],
        )
    except UnsupportedModelError:
        return "", ""  # a template for prompts alone
    before, reply, _ = dialogue.partition(_REPLY)
    if head != bare or not reply or not before.startswith(head):
        return "", ""
    between = before[len(head) :]
    return ("", between) if between.isspace() else (between, "")
