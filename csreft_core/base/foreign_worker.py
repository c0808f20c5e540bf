"""A process of its own that runs what a foreign base brings: its chat template, its tokeniser.

Started as a file by `foreign`, and imports nothing of this package: it has to start fast and to
need little memory. One request a line comes in as JSON, one answer a line goes out. A request that
takes too long or too much memory ends the process, and with it nothing else.
"""

import json
import signal
import sys
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY = 1 << 30
_MOST_TEXT = 1_000_000


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks what the assistant said; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - jinja asks for a set

    def parse(self, parser: Any) -> Any:
        """The block's own statements."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def environment() -> ImmutableSandboxedEnvironment:
    """What chat templates of transformers may use."""
    sandbox = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    sandbox.filters["tojson"] = _as_json
    sandbox.globals["raise_exception"] = _refuse
    sandbox.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return sandbox


def _as_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """jinja's own filter escapes HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def render(source: str, chats: list[dict[str, Any]]) -> list[str]:
    """The text of each chat; a chat holds the names that the template may use."""
    template = environment().from_string(source)
    texts = [template.render(**chat) for chat in chats]
    for text, chat in zip(texts, chats, strict=True):
        n_given = sum(len(str(message)) for message in chat["messages"])
        if len(text) > _MOST_TEXT + 10 * n_given:
            raise ValueError(f"it makes {len(text):,} characters of {n_given:,}")
    return texts


def try_tokenizer(file: str, texts: list[str]) -> int:
    """Load a `tokenizer.json` and read some texts; the number of its tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(file)
    for text in texts:
        tokenizer.decode(tokenizer.encode(text).ids)
    return tokenizer.get_vocab_size()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What comes of a request, or why nothing does."""
    job = {"render": render, "try_tokenizer": try_tokenizer}[request["job"]]
    try:
        return {"result": job(*request["arguments"])}
    # A panic of the tokeniser's library is no Exception; all that foreign code raises is told.
    except BaseException as error:  # noqa: BLE001
        lines = str(error).strip().splitlines() or [""]
        return {"error": f"{type(error).__name__}: {lines[0][:200]}".removesuffix(": ")}


def _hold_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows: the time limits remain
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    except (ValueError, OSError):  # macOS knows no such limit
        return


def _hold_time(seconds: float) -> None:
    """From now on so many seconds of computing, after which the system ends this process."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def main() -> None:
    """Answer until nobody asks any more."""
    _hold_memory()
    for line in sys.stdin:
        request = json.loads(line)
        _hold_time(request["seconds"])
        reply = json.dumps(answer(request))
        _hold_time(0)
        sys.stdout.write(reply + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
