"""A base's tokeniser: loaded only after it was tried, and what some of its tokens stand for."""

from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from transformers import AutoTokenizer

from csreft_core.base import foreign
from csreft_core.errors import UnsupportedModelError, first_line

_BYTES_PER_SECOND = 5_000_000
_reading = Lock()
# Words, runs, lines, numbers and other scripts: what patterns stumble over.
_TRIED = (
    "",
    "The cat sat on the mat. It isn't 3.14!",
    "a" * 200 + "!",
    " " * 200 + "x",
    "\n" * 50,
    "1" * 200 + "x",
    "ab " * 100,
    "日本語 текст العربية é 🙂",
    "def f(x):\n\treturn x\n",
)


def load_tokenizer(source: Path | str, name: str, revision: str | None = None) -> Any:
    """A tokeniser from a folder, or of a Hub id.

    Args:
        source: A folder or a Hub id.
        name: The base, for messages.
        revision: Of a Hub id.

    Raises:
        UnsupportedModelError: it cannot be loaded, or its file does not work.
    """
    file = Path(source) / "tokenizer.json"
    if file.is_file():
        about = file.stat()
        _try_out(str(file), about.st_mtime_ns, about.st_size, name)
    try:
        return AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
    except BaseException as error:
        if not (isinstance(error, Exception) or _is_panic(error)):
            raise
        raise UnsupportedModelError(
            f"{name}: its tokeniser cannot be loaded ({first_line(error)}); put the files that "
            "came with the weights next to them, such as tokenizer.json"
        ) from None


@lru_cache(maxsize=64)
def _try_out(file: str, mtime_ns: int, size: int, name: str) -> None:  # noqa: ARG001 - of the key
    """See once that the file loads and reads some texts, where it can do no harm."""
    seconds = foreign.SECONDS + size / _BYTES_PER_SECOND
    foreign.ask("try_tokenizer", file, _TRIED, name=f"{name}: its tokenizer.json", seconds=seconds)


def tokens_of(texts: list[str], tokenizer: Any, **settings: Any) -> Any:
    """Tokens of texts without those that the tokeniser adds; the one place that reads texts.

    The settings of a call stay in the tokeniser, so two threads may not read at once.

    Args:
        texts: At least one.
        tokenizer: A Hugging Face tokeniser.
        settings: Of its call.

    Raises:
        UnsupportedModelError: the tokeniser's library gives up.
    """
    defaults = {"add_special_tokens": False, "verbose": False, "split_special_tokens": False}
    try:
        with _reading:
            return tokenizer(texts, **(defaults | settings))
    except BaseException as error:
        if not _is_panic(error):
            raise
        raise UnsupportedModelError(
            f"the base's tokeniser gives up on a text ({first_line(error)}); its tokenizer.json "
            "is damaged: copy it again"
        ) from None


def _is_panic(error: BaseException) -> bool:
    """Whether the tokeniser's library gave up; its error is no `Exception`."""
    return type(error).__name__ == "PanicException"


def pad_token(tokenizer: Any, vocabulary: int | None) -> int:
    """Token to pad with; it is always masked, but the embedding has to have it.

    Args:
        tokenizer: A Hugging Face tokeniser.
        vocabulary: Rows of the embedding; None where they are not known.
    """
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(token, int) and (vocabulary is None or token < vocabulary):
            return token
    return 0


def unknown_token(tokenizer: Any) -> int | None:
    """The token that stands for all that the tokeniser cannot write; None where it writes all.

    GPT-2's tokeniser names its end token here as well, which stands for nothing unknown.
    """
    unknown = tokenizer.unk_token_id
    return None if unknown == tokenizer.eos_token_id else unknown


def special_texts(tokenizer: Any) -> tuple[str, ...]:
    """How the tokeniser's special tokens are spelled, but for the unknown one; longest first."""
    others = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    every = dict.fromkeys([*tokenizer.all_special_tokens, *others])
    if unknown_token(tokenizer) is not None:
        every.pop(tokenizer.unk_token, None)
    return tuple(sorted(every, key=len, reverse=True))


def unknown_words(texts: list[str], tokenizer: Any) -> list[list[str]]:
    """The words of each text that the tokeniser has no token for, each once, in their order."""
    unknown = unknown_token(tokenizer)
    if unknown is None or not texts:
        return [[] for _ in texts]
    if not tokenizer.is_fast:  # no offsets: ask for each word between spaces
        words = sorted({word for text in texts for word in text.split()})
        ids = tokens_of(words, tokenizer)["input_ids"]
        bad = {word for word, word_ids in zip(words, ids, strict=True) if unknown in word_ids}
        return [[w for w in dict.fromkeys(text.split()) if w in bad] for text in texts]
    encoding = tokens_of(texts, tokenizer, return_offsets_mapping=True)
    return [
        list(
            dict.fromkeys(
                text[a:b]
                for token, (a, b) in zip(ids, places, strict=True)
                if token == unknown and a < b
            )
        )
        for text, ids, places in zip(
            texts, encoding["input_ids"], encoding["offset_mapping"], strict=True
        )
    ]
