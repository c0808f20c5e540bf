"""Text that is not ours, as Streamlit's Markdown: it is shown as it was written, and does nothing.

Names of runs, skills and files, prompts, answers, addresses and messages can hold Markdown, and an
image in it would be fetched from wherever it says. Whatever a page draws as Markdown (also labels
and tooltips) and did not write itself goes through `plain` or `verbatim`.
"""

import re

# Drawn as nothing; it keeps apart what the browser would join to a link, an emoji or an icon. These
# are found in the finished text, where a backslash has no effect any more.
_JOINER = "\u2060"

_BLANKS = re.compile(r"[\s\x00-\x1f\x7f]+")
_INLINE = re.compile(r"[\\`*\[\]<>&$~|{}]|(?<![^\W_])_|_(?![^\W_])|!(?=\[)")
_BLOCK = re.compile(r"^( ?)(?=[#+\-=])|^( ?\d{1,9})(?=[.)])")
_JOINED = re.compile(
    r"(?<=:)(?=[\w+-]*[^\W\d][\w+-]*:|[+-]1:|100:|1234:|material/|//)|(?i:(?<=www))(?=\.)|(?<=[\w.+-])(?=@)"
)
_DIRECTIVE = re.compile(r":(?=[A-Za-z:])")


def plain(text: object) -> str:
    """A text for anything that is drawn as Markdown, in one line, without markup of its own."""
    line = _BLANKS.sub(" ", _encodable(str(text)))
    line = _JOINED.sub(_JOINER, line)
    line = _BLOCK.sub(r"\g<0>\\", _INLINE.sub(r"\\\g<0>", line))
    return _DIRECTIVE.sub(r"\\:", line)


def verbatim(text: object) -> str:
    """A text as code within a line; no backtick in it can end it."""
    line = _BLANKS.sub(" ", _encodable(str(text))).strip() or " "
    fence = "`" * (1 + max(map(len, re.findall(r"`+", line)), default=0))
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def _encodable(text: str) -> str:
    """Half characters, which no page can be sent, become question marks."""
    return text.encode("utf-8", errors="replace").decode("utf-8")
