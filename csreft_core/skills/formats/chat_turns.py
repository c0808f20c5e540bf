"""Chats: messages with roles and contents, ShareGPT's turns, and histories of pairs.

A row has one prompt and one answer. The answer is the last one of the assistant that is trained;
what was said before it is the prompt. What cannot be said so is refused by name.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from csreft_core.errors import SkillSetError
from csreft_core.skills.formats.records import name_list, quote, short_text
from csreft_core.skills.names import fold

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
}
_ROLE, _CONTENT = ("role", "from"), ("content", "value")
_CALLS = ("tool_calls", "function_call", "tool_call_id", "tools", "functions")
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_CHOSEN = ("train", "mask", "loss", "trainable")
# Takes a remark for the user about what was read in an unusual way.
Say = Callable[[str], None]


class Turn(NamedTuple):
    """What one side said; `trained` is false where the file gives the answer the weight 0."""

    role: str
    text: str
    trained: bool = True


def turns_of(messages: Any, field: str, where: str, say: Say) -> list[Turn]:
    """The turns of a list of messages, empty system turns left out.

    Args:
        messages: What the field holds.
        field: Its name.
        where: Of the record.
        say: Called with what is not used.

    Raises:
        SkillSetError: something else, a role or a kind of content that is not understood.
    """
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise SkillSetError(
            f"{where}: field {quote(field)}: expected a list of objects with the texts 'role' and "
            f"'content', got {short_text(messages)}"
        )
    turns = []
    for i, message in enumerate(messages, start=1):
        turn, unused_names = _turn(message, f"{where}: field {quote(field)}, message {i}")
        turns.append(turn)
        for name in unused_names:
            say(f"in {quote(field)}, the field {quote(name)} is not used")
    return [turn for turn in turns if turn.text.strip() or turn.role != "system"]


def _turn(message: dict[str, Any], where: str) -> tuple[Turn, list[str]]:
    """What was said, and the names of fields that hold something and are not used."""
    names = {fold(name): name for name in message}
    role_name, content_name = (
        next((names[name] for name in usual if name in names), None) for usual in (_ROLE, _CONTENT)
    )
    if role_name is None:
        raise SkillSetError(
            f"{where}: expected the texts 'role' and 'content', found {name_list(message)}"
        )
    for name, value in message.items():
        _check_member(fold(name), name, value, where)
    role = ROLES.get(fold(str(message[role_name])))
    if role is None:
        raise SkillSetError(
            f"{where}: the role {short_text(message[role_name])} is not understood; expected "
            "system, user or assistant (tool calls are not trained here)"
        )
    if content_name is None:
        raise SkillSetError(
            f"{where}: expected the texts 'role' and 'content', found {name_list(message)}"
        )
    read_names = (role_name, content_name, names.get("weight"))
    unused_names = [name for name, value in message.items() if value and name not in read_names]
    text = _content(message[content_name], where)
    return Turn(role, text, _is_trained(message, names, where)), unused_names


def _check_member(key: str, name: str, value: Any, where: str) -> None:
    if key in _CALLS and value:
        raise SkillSetError(
            f"{where}: {quote(name)}: tool calls are not trained here; drop the row"
        )
    if key in _THOUGHTS and value:
        raise SkillSetError(
            f"{where}: {quote(name)} is no part of the answer here; write it into the content, or "
            "drop the field"
        )
    if key in _CHOSEN and value is not None:
        raise SkillSetError(
            f"{where}: {quote(name)} is not understood; say which answers are trained with "
            "'weight' 0 or 1, as OpenAI's files do, or drop the field"
        )


def _content(value: Any, where: str) -> str:
    """A text, or the texts of a list of parts, one below the other."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise SkillSetError(f"{where}: expected a text as content, got {short_text(value)}")
    texts = []
    for part in value:
        text = part.get("text") if isinstance(part, dict) else part
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if kind != "text" or not isinstance(text, str):
            what = short_text(part if kind == "text" else kind)
            raise SkillSetError(
                f"{where}: a part of the content is no text but {what}; only text is read here"
            )
        texts.append(text)
    return "\n".join(texts)


def _is_trained(message: dict[str, Any], names: dict[str, str], where: str) -> bool:
    value = message.get(names.get("weight", "weight"))
    weight = None if value is None or isinstance(value, bool) else str(value)
    if value is not None and weight not in ("0", "1", "0.0", "1.0"):
        raise SkillSetError(f"{where}: 'weight': expected 0 or 1, got {short_text(value)}")
    return weight not in ("0", "0.0")


def history_turns(history: Any, field: str, where: str, say: Say) -> list[Turn]:
    """The turns of a history: pairs of what the user and the assistant said, or messages.

    Raises:
        SkillSetError: something else.
    """
    if isinstance(history, list) and all(isinstance(item, dict) for item in history):
        return turns_of(history, field, where, say)
    is_pairs = isinstance(history, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(t, str) for t in pair)
        for pair in history
    )
    if not is_pairs:
        raise SkillSetError(
            f"{where}: field {quote(field)}: expected a list of pairs, what the user said and "
            f"what the assistant answered, got {short_text(history)}"
        )
    return [
        Turn(role, text)
        for pair in history
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def prompt_and_answer(turns: Sequence[Turn], field: str, where: str, say: Say) -> tuple[str, str]:
    """The last trained answer of the assistant, and what was said before it.

    Raises:
        SkillSetError: no such answer, or it follows no message of the user.
    """
    answers = [i for i, turn in enumerate(turns) if turn.role == "assistant"]
    last = max((i for i in answers if turns[i].trained), default=0)
    if last == 0 or turns[last - 1].role != "user":
        hint = (
            " (an answer of weight 0 is not trained)"
            if any(not turn.trained for turn in turns)
            else ""
        )
        raise SkillSetError(
            f"{where}: field {quote(field)}: expected a message of the user and then one of the "
            f"assistant{hint}, got the roles {', '.join(t.role for t in turns) or 'of nobody'}"
        )
    if any(not turn.text.strip() for turn in turns[: last + 1]):
        raise SkillSetError(
            f"{where}: field {quote(field)}: a message is empty; fill it or drop the row"
        )
    if last < len(turns) - 1:
        say(f"in {quote(field)}, what follows the last trained answer is not used")
    if sum(i < last for i in answers):
        say(f"in {quote(field)}, the last answer is trained; the earlier ones stand in the prompt")
    if last == 1:
        return turns[0].text, turns[1].text
    say("a system text and earlier turns stand in the prompt, as lines such as 'system: ...'")
    prompt = "\n".join(f"{turn.role}: {turn.text.strip()}" for turn in turns[:last])
    return prompt, turns[last].text
