"""What a foreign base brings can do no harm: loops, memory, panics."""

import time

import pytest
from tokenizers import Tokenizer

from csreft_core.base import foreign
from csreft_core.base.text.tokenisers import load_tokenizer, tokens_of
from csreft_core.config import BaseConfig
from csreft_core.errors import UnsupportedModelError
from csreft_core.inference.loaded_bases import LoadedBases
from tests.small_tokenisers import byte_level, description

_DOUBLED = (
    "{% set x = namespace(s='aaaaaaaa') %}"
    "{% for i in range(60) %}{% set x.s = x.s ~ x.s %}{% endfor %}"
)
HOSTILE = {
    "loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "power": "{{ 2 ** (10 ** 9) }}",
    "memory": "{{ 'a' * 10 ** 10 }}",
    "width": "{{ '%2000000000s' % 'a' }}",
    "doubled": _DOUBLED,
    "recursion": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "length": "{{ 'a' * 9000000 }}",
    "internals": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "file": "{% include '/etc/passwd' %}",
}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """A tenth of the time, so that the test is short; the kind of the limit is the same."""
    monkeypatch.setattr(foreign, "SECONDS", 0.2)


def render(template: str) -> list[str]:
    return foreign.ask("render", template, [CHAT], name="it", seconds=foreign.SECONDS)


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_chat_template_is_refused_and_the_next_one_works(template):
    with pytest.raises(UnsupportedModelError, match=r"^it (does not work|ends the process)"):
        render(template)
    assert render("{{ messages[0].content }}") == ["hi"]


def test_a_worker_that_hangs_without_computing_is_ended(monkeypatch):
    monkeypatch.setattr(foreign, "WAIT_S", 0.0)
    start = time.perf_counter()
    with pytest.raises(UnsupportedModelError, match="ends the process"):
        foreign.ask("render", HOSTILE["loop"], [CHAT], name="it", seconds=60.0)
    assert time.perf_counter() - start < 30  # not the minute that it may compute


BROKEN = {
    "when it is loaded": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "when it reads": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "that grows": {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"}
                for _ in range(20)
            ],
        }
    },
}


@pytest.mark.parametrize("changes", BROKEN.values(), ids=BROKEN)
def test_a_tokeniser_that_panics_is_refused(changes, tmp_path):
    byte_level().save_pretrained(tmp_path)
    assert len(load_tokenizer(tmp_path, "mine")) > 256
    (tmp_path / "tokenizer.json").write_text(description(**changes))
    with pytest.raises(UnsupportedModelError, match=r"mine: its tokenizer.json (does|ends)"):
        load_tokenizer(tmp_path, "mine")


def test_a_panic_while_reading_is_no_end_of_all():
    """Its error is no `Exception`, so it would pass by whoever waits."""
    tokenizer = byte_level()
    tokenizer._tokenizer = Tokenizer.from_str(description(**BROKEN["when it reads"]))
    with pytest.raises(UnsupportedModelError, match="gives up on a text"):
        tokens_of(["hi"], tokenizer)


def test_whoever_waits_for_a_load_hears_of_an_error_of_any_kind():
    class PanicException(BaseException):
        pass

    def load(*_args: object, **_settings: object) -> None:
        raise PanicException("no entry found")

    bases = LoadedBases(load=load)
    with pytest.raises(PanicException):
        bases.engine(BaseConfig())
