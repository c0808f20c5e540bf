"""The columns of the Compare page: who answers, asking them all at once, and showing an answer."""

import json
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from csreft_core.analysis.answers.token_changes import Piece, token_texts
from csreft_core.app.figures.source import short_path
from csreft_core.app.page import cached, kept
from csreft_core.app.page.cached import ShownAnswer, answer_key
from csreft_core.app.page.markup import plain
from csreft_core.app.page.shell import showing_errors
from csreft_core.base.decoding_kinds import OURS
from csreft_core.runs.all_runs import Run
from csreft_core.skills.skill_set import Row

if TYPE_CHECKING:
    from csreft_core.inference.answers import Answer

_ANSWERS = "compare-answers"
_MOST_KEPT = 24


@dataclass(frozen=True)
class Sampling:
    """How the tokens are drawn, as `Engine.generate` takes it."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    max_new_tokens: int = 32
    decoding: str = OURS


@dataclass(frozen=True)
class Column:
    """One who answers.

    Attributes:
        kind: `base`, `learned`, `manual` or `other`.
        title: Above the answer.
        run: Whose base and adapter.
        gates: Gate setting; empty is the bare base.
        row: The prompt, with the skills that `oracle` gates need.
    """

    kind: str
    title: str
    run: Run
    gates: str
    row: Row

    @property
    def question(self) -> dict[str, Any]:
        """See `cached.answer_key`."""
        return answer_key(self.row.prompt, self.gates, self.row.skills)

    def key(self, sampling: Sampling) -> str:
        """The same text for the same question to the same adapter."""
        stamp = self.run.adapter_path.stat().st_mtime_ns if self.gates else 0
        adapter = (self.run.config().base.path, str(self.run.path) if self.gates else "", stamp)
        parts = (*adapter, self.gates, *self.row.skills, self.row.prompt)
        return json.dumps([*parts, asdict(sampling)])


def earlier_answer(column: Column, sampling: Sampling) -> ShownAnswer | None:
    """The answer to the same question in this session, or kept beside the run."""
    fields = st.session_state.get(_ANSWERS, {}).get(column.key(sampling))
    if fields is None and sampling == Sampling():
        fields = kept.find(column.run, "answer", column.question)
    return None if fields is None else ShownAnswer(**fields)


def ask_together(
    columns: Sequence[Column], places: Sequence[DeltaGenerator], sampling: Sampling
) -> None:
    """Ask all columns at the same time; each writes into its place as its tokens come.

    The answers are kept for this session. A mistake is shown in the place of its column.
    """
    running = [
        (place, _write_answer(column, sampling))
        for column, place in zip(columns, places, strict=True)
    ]
    while running:
        for pair in list(running):
            place, stream = pair
            goes_on = False
            with place, showing_errors():
                goes_on = next(stream, None) is not None
            if not goes_on:
                running.remove(pair)


def _write_answer(column: Column, sampling: Sampling) -> Iterator[str]:
    """Writes the answer where it is drained, and gives the text so far."""
    adapter = cached.adapter_of(column.run) if column.gates else None
    engine, start = cached.engine_of(column.run), time.perf_counter()
    stream = engine.stream(
        adapter,
        column.row.prompt,
        column.gates or "learned",
        skills=column.row.skills or None,
        template=cached.template_of(column.run.config()),
        **asdict(sampling),
    )
    text = ""
    while True:
        try:
            text += next(stream)
        except StopIteration as end:
            _keep(column, sampling, end.value, time.perf_counter() - start)
            return
        st.code(text.strip() or "…", language=None, wrap_lines=True)
        yield text


def _keep(column: Column, sampling: Sampling, answer: "Answer", seconds: float) -> None:
    tokens = token_texts(cached.engine_of(column.run).base.tokenizer, answer.text)
    shown = ShownAnswer(answer.text, answer.gates, answer.n_tokens, tokens)
    if sampling == Sampling():
        kept.note(column.run, "answer", column.question, asdict(shown))
    answers = dict(st.session_state.get(_ANSWERS, {}))
    answers[column.key(sampling)] = asdict(replace(shown, seconds=round(seconds, 4)))
    st.session_state[_ANSWERS] = dict(list(answers.items())[-_MOST_KEPT:])


def is_right(text: str, row: Row) -> bool | None:
    """Whether the answer is the known one; None where none is known."""
    return text.strip() == row.response.strip() if row.response else None


def answer_html(pieces: Sequence[Piece]) -> str:
    """The answer as HTML: what the first column lacks is bold, underlined and has a plus.

    [−n] stands where n tokens of the first column are missing. All text is escaped.
    """
    parts = []
    for piece in pieces:
        if piece.missing:
            lost = escape("".join(piece.missing).strip(), quote=True)
            parts.append(
                f'<small title="missing here: {lost}" style="user-select:none;opacity:.75">'
                f"[−{len(piece.missing)}]</small> "
            )
        if piece.added:
            lead = piece.text[: len(piece.text) - len(piece.text.lstrip())]
            parts.append(
                f'{escape(lead)}<span style="user-select:none" title="not in the first column">+'
                f'</span><b style="text-decoration:underline">{escape(piece.text.strip())}</b>'
                f"{escape(piece.text[len(piece.text.rstrip()) :])}"
            )
        else:
            parts.append(escape(piece.text))
    return "".join(parts)


def show_answer(column: Column, answer: ShownAnswer, pieces: Sequence[Piece]) -> None:
    """One answer: its text with the differences marked, whether it is right, gates and cost."""
    body = answer_html(pieces) if answer.text else "<i>(an empty answer)</i>"
    st.html(
        '<div style="font-family:monospace;font-size:1.05rem;line-height:1.6;white-space:pre-wrap;'
        f'overflow-wrap:anywhere;min-height:3.2em">{body}</div>'
    )
    right = is_right(answer.text, column.row)
    marks = {True: ":material/check: **right**", False: ":material/close: **wrong**"}
    parts = [marks[right]] if right is not None else []
    parts.append(f"{answer.n_tokens} token{'' if answer.n_tokens == 1 else 's'}")
    if answer.seconds is not None:
        parts.append(f"{answer.seconds:.2f} s")
    st.markdown(" · ".join(parts))
    st.caption(plain(gates_text(answer.gates)))


def gates_text(gates: dict[str, float] | None) -> str:
    """The gates in one line."""
    if gates is None:
        return "No gates: the bare base."
    return "Gates: " + " · ".join(f"{name} {gate:.3f}" for name, gate in gates.items())


def command(column: Column, answer: ShownAnswer, sampling: Sampling) -> str:
    """The command that gives the same answer."""
    setting = column.gates or "off"
    if setting == "oracle":
        setting = ",".join(f"{gate:g}" for gate in (answer.gates or {}).values())
    words = ["python", "-m", "csreft_core", "generate", short_path(column.run.path)]
    prompt = column.row.prompt
    words += [f"--prompt={prompt}"] if prompt.startswith("-") else ["--prompt", prompt]
    words += [f"--gates={setting}"]
    for name, value in asdict(sampling).items():
        if value != getattr(Sampling(), name):
            words.append(f"--{name.replace('_', '-')}={value}")
    return shlex.join(words)
