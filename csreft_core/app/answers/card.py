"""A comparison saved as a card: one offline HTML page, Markdown or JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from csreft_core.analysis.answers.token_changes import Piece
from csreft_core.app.answers.column import answer_html, gates_text
from csreft_core.app.page.markup import plain, verbatim

_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}"
    ".row{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr))}"
    ".card{border:1px solid #8a93a0;border-radius:.5rem;padding:.25rem 1rem 1rem}"
    ".text{font-family:monospace;font-size:1.1rem;white-space:pre-wrap;overflow-wrap:anywhere}"
    "small,dt,footer{opacity:.8}dl{display:grid;grid-template-columns:auto 1fr;gap:.1rem 1rem}"
    "dd{margin:0;overflow-wrap:anywhere}h2{font-size:1.05rem}"
)


@dataclass(frozen=True)
class Card:
    """What was asked and what came.

    Attributes:
        prompt: The question.
        known: Its known answer; empty where there is none.
        settings: Names and values, in the order in which they are shown.
        answers: One for each column: title, run, gate_setting, gates, text, right, n_tokens,
            seconds.
        pieces: Of each answer, its differences from the first.
    """

    prompt: str
    known: str
    settings: dict[str, Any]
    answers: Sequence[dict[str, Any]]
    pieces: Sequence[Sequence[Piece]]

    def to_json(self) -> str:
        """All of it as JSON."""
        tree = {
            "prompt": self.prompt,
            "known_answer": self.known or None,
            "settings": self.settings,
            "answers": list(self.answers),
        }
        return json.dumps(tree, ensure_ascii=False, indent=2)

    def to_html(self) -> str:
        """A page that needs no network; every text is escaped."""
        known = f"<p>Known answer: <code>{escape(self.known)}</code></p>" if self.known else ""
        settings = "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
            for name, value in self.settings.items()
        )
        answers = "".join(
            f'<section class="card"><h2>{escape(answer["title"])}</h2>'
            f'<p class="text">{answer_html(pieces) or "<i>(an empty answer)</i>"}</p>'
            f"<p>{escape(_cost(answer))}</p><small>{escape(gates_text(answer['gates']))}</small>"
            "</section>"
            for answer, pieces in zip(self.answers, self.pieces, strict=True)
        )
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width">'
            f"<title>{escape(self.prompt)}</title><style>{_STYLE}</style></head><body>"
            f"<h1>{escape(self.prompt)}</h1>{known}"
            f'<div class="row">{answers}</div>'
            "<p><small>+ bold, underlined: tokens that the first column lacks; [−n]: n of its "
            f"tokens are missing here.</small></p><h2>Settings</h2><dl>{settings}</dl>"
            "<footer>CS-ReFT Explorer</footer></body></html>"
        )

    def to_markdown(self) -> str:
        """As Markdown; texts stand in fenced blocks that they cannot end."""
        parts = [f"# Comparison\n\nPrompt:\n\n{_fence(self.prompt)}"]
        if self.known:
            parts.append(f"Known answer:\n\n{_fence(self.known)}")
        for answer in self.answers:
            parts.append(
                f"## {plain(answer['title'])}\n\n{_fence(answer['text'])}\n\n"
                f"{plain(_cost(answer))}\n\n{plain(gates_text(answer['gates']))}"
            )
        settings = "\n".join(
            f"- {name}: {verbatim(value)}" for name, value in self.settings.items()
        )
        return "\n\n".join([*parts, f"## Settings\n\n{settings}"]) + "\n"


def _cost(answer: dict[str, Any]) -> str:
    marks = {True: "✓ right", False: "✗ wrong", None: "no known answer"}
    who = f"run {answer['run']}, gates {answer['gate_setting']}"
    took = [] if answer["seconds"] is None else [f"{answer['seconds']:.2f} s"]
    of_whom = "no adapter" if answer["gates"] is None else who
    return " · ".join([marks[answer["right"]], f"{answer['n_tokens']} tokens", *took, of_whom])


def _fence(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"
