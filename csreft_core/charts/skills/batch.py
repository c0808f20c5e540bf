"""A training batch as HTML: tokens in lines that wrap, the loss shaded, the edits marked.

A heat-map has no room for the words of a long row; text wraps on every screen. Everything that
comes from the data is escaped.
"""

from collections.abc import Sequence
from html import escape

import pandas as pd

from csreft_core.charts.theme import LIGHT, Palette, ordered, styles

QUESTION = "Am I training on the right tokens?"
# Relative to the text's own colour, so that they show on a light and on a dark page.
_SHADE = "background:color-mix(in srgb, #e3a008 38%, transparent)"
_EDIT = "box-shadow:inset 0 -3px 0 0 #d6409f;font-weight:600"
_FAINT = "opacity:0.55"


def batch_html(
    table: pd.DataFrame,
    names: Sequence[str] | None = None,
    examples: int = 8,
    *,
    palette: Palette = LIGHT,
) -> str:
    """The first examples of a batch, one paragraph each, under a legend.

    Args:
        table: `batch_table`: columns example, skill, column, token, part, in_loss, edited.
        names: Order of the skills; gives each its colour.
        examples: How many are shown; the table has them all.
        palette: Colours of the skills.
    """
    style = styles(ordered(names, table["skill"]), palette)
    legend = (
        f'<p><span style="{_FAINT}">padding ×n</span> &nbsp; prompt &nbsp; '
        f'<span style="{_SHADE};padding:0 4px">answer: in the loss</span> &nbsp; '
        f'<span style="{_EDIT};padding:0 4px">edited</span></p>'
    )
    blocks = []
    for _, part in table[table["example"] <= examples].groupby("example", sort=True):
        skill = str(part["skill"].iloc[0])
        blocks.append(
            '<p style="margin:0 0 0.7em;line-height:1.9">'
            f'<span style="color:{style[skill].colour}" aria-hidden="true">●</span> '
            f"<small>{escape(skill)}</small><br>{_tokens(part)}</p>"
        )
    return f'<div role="group" aria-label="{QUESTION}">{legend}{"".join(blocks)}</div>'


def _tokens(part: pd.DataFrame) -> str:
    n_padding = int((part["part"] == "padding").sum())
    spans = [f'<span style="{_FAINT}">padding ×{n_padding}</span>'] if n_padding else []
    for row in part[part["part"] != "padding"].to_dict("records"):
        looks = [_SHADE] * bool(row["in_loss"]) + [_EDIT] * bool(row["edited"])
        said = f"{row['part']}, {'in the loss' if row['in_loss'] else 'not in the loss'}"
        said += ", edited" if row["edited"] else ""
        title = escape(f"token {row['token_id']} at place {row['column']}: {said}", quote=True)
        css = ";".join(
            ["display:inline-block;margin:0 2px;padding:0 3px;border-radius:3px", *looks]
        )
        spans.append(f'<span style="{css}" title="{title}">{_text(row["token"])}</span>')
    return " ".join(spans)


def _text(token: str) -> str:
    """A token with its white space made visible."""
    return escape(token.replace("\n", "⏎").replace(" ", "␣")) or "(empty)"


def batch_page(
    table: pd.DataFrame,
    names: Sequence[str] | None = None,
    examples: int = 8,
    *,
    palette: Palette = LIGHT,
) -> str:
    """The same as a page of its own, which needs no network."""
    body = batch_html(table, names, examples, palette=palette)
    look = f"background:{palette.background};color:{palette.text}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<title>{QUESTION}</title></head><body style="font-family:sans-serif;margin:2em;{look}">'
        f"<h1>{QUESTION}</h1>{body}</body></html>"
    )
