"""Heavy work, kept by ids: the loaded base, adapters, answers, rows, metrics.

Keys are paths with their time of change, the base's settings and the prompt; never a model or a
tensor. Every cache has a bound.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from csreft_core.app.page import kept
from csreft_core.app.page.ceilings import MOST_FILE_BYTES
from csreft_core.app.page.turns import TURNS
from csreft_core.config import PLAIN_TEMPLATE, BaseConfig, Config
from csreft_core.errors import RunError
from csreft_core.files import check_plain
from csreft_core.reft.adapter_spec import AdapterSpec, read_spec
from csreft_core.runs.all_runs import Run
from csreft_core.skills.skill_set import Row, SkillSet, read_skills

# Torch and transformers are imported where a base or an adapter's numbers are needed: that takes
# seconds, and the first views of a shipped run need neither.
if TYPE_CHECKING:
    from csreft_core.analysis.subject import Subject
    from csreft_core.inference.engine import Engine
    from csreft_core.inference.loaded_bases import Load, LoadedBase, LoadedBases
    from csreft_core.reft.adapter import CSReFT

Stamp = tuple[str, int]


def stamp_of(path: Path) -> Stamp:
    """A file and its time of change: the same stamp means the same content."""
    return str(path), path.stat().st_mtime_ns if path.exists() else 0


def _check_file(path: Path) -> Path:
    """The path of a run's file that a page can read whole.

    Raises:
        RunError: it is no plain file, or too large for a page.
    """
    try:
        check_plain(path, MOST_FILE_BYTES)
    except FileNotFoundError:
        pass  # who reads it says so
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}; a page cannot show it") from None
    return path


def _base_key(config: Config) -> str:
    return json.dumps(asdict(config.base))


@st.cache_resource(show_spinner="Loading torch …")
def bases() -> "LoadedBases":
    """The bases in memory, at most two, for all sessions."""
    from csreft_core.inference.loaded_bases import LoadedBases

    return LoadedBases(most=2)


def held_base(config: BaseConfig) -> "LoadedBase | None":
    """The base if it is in memory."""
    return bases().find(config) if _has_loaded() else None


def load_of(config: BaseConfig) -> "Load | None":
    """The load of a base that runs or has failed."""
    return bases().load(config) if _has_loaded() else None


def _has_loaded() -> bool:
    """Nothing is in memory, or on its way, while what loads was not even imported."""
    return "csreft_core.inference.loaded_bases" in sys.modules


def engine_of_base(config: BaseConfig) -> "Engine":
    """The engine of a base, loaded now if it is not in memory."""
    if bases().find(config) is not None:
        return bases().engine(config)
    with st.spinner("Loading the base model …"), TURNS.stepped_aside():
        return bases().engine(config)


def _engine(base_key: str) -> "Engine":
    return engine_of_base(BaseConfig(**json.loads(base_key)))


def engine_of(run: Run) -> "Engine":
    """The engine of a run's base; shared by all sessions."""
    return _engine(_base_key(run.config()))


@st.cache_resource(max_entries=8, show_spinner=False)
def _adapter(stamp: Stamp) -> "CSReFT":
    from csreft_core.reft.adapter import load_adapter

    return load_adapter(Path(stamp[0]))


def adapter_of(run: Run) -> "CSReFT":
    """The run's trained adapter; raises `AdapterError` where there is none."""
    return _adapter(stamp_of(_check_file(run.adapter_path)))


@st.cache_resource(max_entries=32, show_spinner=False)
def _spec(stamp: Stamp) -> AdapterSpec:
    return read_spec(Path(stamp[0]))


def spec_of(run: Run) -> AdapterSpec:
    """What the run's adapter is; raises `AdapterError` where it is none, or damaged."""
    if kept.is_kept(run):
        return _spec(stamp_of(run.adapter_path))
    return adapter_of(run).spec


def spec_on_its_base(run: Run) -> AdapterSpec:
    """As `spec_of`; raises `AdapterError` also where the base is another one.

    Of a run whose first views are kept, the base is not looked at: they need none.
    """
    return spec_of(run) if kept.is_kept(run) else subject_of(run).adapter.spec


def template_of(config: Config) -> str:
    """The resolved template of a run's prompts."""
    return PLAIN_TEMPLATE if config.provenance is None else config.provenance.template


@dataclass(frozen=True)
class ShownAnswer:
    """An answer as pages show it.

    Attributes:
        text: Without white space around it.
        gates: Under which it was given, by subspace; None of the bare base.
        n_tokens: How many were generated.
        tokens: The text, cut where a token begins.
        seconds: How long it took; None where it was not asked for just now.
    """

    text: str
    gates: dict[str, float] | None
    n_tokens: int
    tokens: Sequence[str]
    seconds: float | None = None


@st.cache_data(max_entries=256, show_spinner="Asking the model …")
def _answer(
    base_key: str,
    adapter: Stamp | None,
    template: str,
    prompt: str,
    gates: str,
    skills: tuple[str, ...],
) -> dict[str, Any]:
    from csreft_core.analysis.answers.token_changes import token_texts

    engine = _engine(base_key)
    answer = engine.generate(
        None if adapter is None else _adapter(adapter),
        prompt,
        gates or "learned",
        template=template,
        skills=skills or None,
    )
    tokens = token_texts(engine.base.tokenizer, answer.text)
    return asdict(ShownAnswer(answer.text, answer.gates, answer.n_tokens, tokens))


def answer(run: Run, prompt: str, gates: str = "", skills: tuple[str, ...] = ()) -> ShownAnswer:
    """The greedy answer with the run's adapter.

    Args:
        run: Gives the base and the adapter.
        prompt: Without template.
        gates: A gate setting; empty is the bare base.
        skills: For `oracle` gates.
    """
    config, stamp = run.config(), stamp_of(run.adapter_path) if gates else None
    key = (_base_key(config), stamp, template_of(config), prompt, gates, skills)
    question = answer_key(prompt, gates, skills)
    return ShownAnswer(**kept.value(run, "answer", question, lambda: _answer(*key)))


def answer_key(prompt: str, gates: str, skills: tuple[str, ...]) -> dict[str, Any]:
    """What `answer` depends on, beside the run."""
    return {"prompt": prompt, "gates": gates, "skills": list(skills if gates else ())}


def subject_of(run: Run) -> "Subject":
    """The run with its base and adapter, as the tables want it; made of what is loaded already.

    Raises:
        AdapterError: no adapter yet, a damaged one, or one of another base.
    """
    from csreft_core.analysis.subject import Subject, on_its_base

    adapter, engine = adapter_of(run), engine_of(run)
    return on_its_base(Subject(engine, adapter, run.config(), skill_set_of(run), run))


def stamps_of(run: Run) -> tuple[Stamp, ...]:
    """The files that decide what a run shows."""
    files = (run.adapter_path, run.config_path, run.path / "skills.jsonl", run.metrics_path)
    return tuple(map(stamp_of, files))


@st.cache_data(max_entries=1024, show_spinner=False)
def _digest(stamp: Stamp) -> str:
    """Of a file's content; of its stamp where it cannot be read, which the reader then says."""
    try:
        return hashlib.sha256(Path(stamp[0]).read_bytes()).hexdigest()
    except OSError:
        return repr(stamp)


# Many runs use the same rows, so they are kept by content; nobody can change them, so they are
# shared.
@st.cache_resource(max_entries=16, show_spinner=False)
def _skill_set(digest: str, _run: Run) -> SkillSet:  # noqa: ARG001
    return _run.skill_set()


def skill_set_of(run: Run) -> SkillSet:
    """The data of a run."""
    return _skill_set(_digest(stamp_of(_check_file(run.path / "skills.jsonl"))), run)


def rows_of(run: Run) -> tuple[Row, ...]:
    """The rows of the run's skill set."""
    return skill_set_of(run).rows


def skill_names(run: Run) -> list[str]:
    """The run's skills, in their order."""
    return list(skill_set_of(run).names)


@st.cache_data(max_entries=16, show_spinner=False)
def _read_skill_set(path: str, stamp: Stamp, skill_column: str) -> SkillSet:  # noqa: ARG001
    return read_skills(path, skill_column)


def read_skill_set(path: str, skill_column: str = "skill") -> SkillSet:
    """A skill set by name, file or folder; raises `SkillSetError`."""
    return _read_skill_set(path, stamp_of(Path(path)), skill_column)


@st.cache_data(max_entries=32, show_spinner=False)
def _metrics(stamp: Stamp, size: int) -> list[dict[str, Any]]:  # noqa: ARG001
    return Run(Path(stamp[0]).parent).metrics()


def metrics_of(run: Run) -> list[dict[str, Any]]:
    """The run's records; read again only when the file has changed."""
    path = _check_file(run.metrics_path)
    return _metrics(stamp_of(path), path.stat().st_size if path.exists() else 0)


def parameters_of(run: Run) -> dict[str, int]:
    """Trained parameters in three parts: subspaces, router, total."""
    return adapter_of(run).counts()


def unknown_words(run: Run, prompt: str) -> list[str]:
    """Words of a prompt that the base's tokeniser has no token for."""

    def compute() -> list[str]:
        from csreft_core.base.text.tokenisers import unknown_words

        return unknown_words([prompt], engine_of(run).base.tokenizer)[0]

    return kept.value(run, "unknown words", {"prompt": prompt}, compute)
