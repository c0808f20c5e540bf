"""How `data.template` is written: `auto`, `chat`, chat with settings, or a text with {prompt}."""

import json
import re
from typing import Any

FORMS = (
    "'auto', 'chat', chat with settings such as chat {\"enable_thinking\": false}, or a text that "
    "contains {prompt} once and may end with {answer}"
)
ANSWER = "{answer}"
"""At the end of a text: the answer begins right there, not behind a space."""
_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\\\": "\\"}


def is_chat(template: str) -> bool:
    """Whether prompts are put into the base's chat template."""
    return template.partition(" ")[0] == "chat"


def chat_settings(template: str) -> dict[str, Any] | None:
    """The settings behind `chat`, such as `{"enable_thinking": false}`; None for other templates.

    `system` is the text of a system message and `template` the name of one of several chat
    templates; all others are variables of the chat template.
    """
    word, _, text = template.partition(" ")
    if word != "chat":
        return None
    if not text.strip():
        return {}
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return settings if isinstance(settings, dict) else None


def check_template(template: str) -> str:
    """The template, if it is one; else a `ValueError` says what it may be."""
    settings = chat_settings(template)
    places = template.count("{prompt}"), ANSWER in template.removesuffix(ANSWER)
    if settings is None and template != "auto" and places != (1, False):
        raise ValueError(f"expected {FORMS}")
    for name in ("system", "template"):
        if not isinstance((settings or {}).get(name, ""), str):
            raise ValueError(f"expected a text as {name!r} of the chat template")
    return template


def unescape(text: str) -> str:
    r"""A template as one types it in one line: `\n` and `\t` are line end and tab, `\\` is `\`."""
    if chat_settings(text) is not None:  # JSON, which has escapes of its own
        return text
    return re.sub(r"\\[nt\\]", lambda match: _ESCAPES[match[0]], text)
