"""Panels of the Skills page: the skill set of the next run, checked before anything is trained."""

from html import escape

import streamlit as st

from csreft_core.analysis.skills import sentences as say
from csreft_core.analysis.skills.batch import batch_table
from csreft_core.analysis.skills.pairs import leaks_table, similarity_table, twins_table
from csreft_core.analysis.skills.tables import (
    counts_table,
    lengths_table,
    skills_table,
    special_table,
    unknown_table,
    unwritable_table,
)
from csreft_core.app.figures.figure import Figure, skill_subject, table_of
from csreft_core.app.figures.shown_code import code, command
from csreft_core.app.figures.source import Source
from csreft_core.app.page import settings
from csreft_core.app.page.ceilings import MOST_STEP, MOST_TABLE_TOKENS
from csreft_core.app.page.markup import plain, verbatim
from csreft_core.app.page.widgets import help_text, page_palette, show_data
from csreft_core.app.skills import choice as skill_choice
from csreft_core.charts.skills import batch as batch_charts
from csreft_core.charts.skills import figures as charts
from csreft_core.charts.theme import styles
from csreft_core.config import Config
from csreft_core.errors import ConfigError, UnsupportedModelError

BALANCE, SEEN, LEAKS, ROWS = PARTS = ("Balance", "As the model sees it", "Leaks", "Rows")
_MOST_CARDS = 12
_EXAMPLES = 8

_BALANCE = Figure("balance", counts_table, charts.balance_bars, say.sentence_counts)
_LENGTHS = Figure("lengths", lengths_table, charts.length_histogram, say.sentence_lengths)
_LEAKS = Figure("leaks", leaks_table, charts.leak_map, say.sentence_leaks)
_SIMILARITY = Figure("similarity", similarity_table, charts.similarity_map, say.sentence_similarity)


def choose() -> Config:
    """The title and the choice of the skill set; the settings of the next run.

    Raises:
        ConfigError: settings that do not fit, or no skill set yet.
        SkillSetError: what is wrong with it.
    """
    st.title("Skills", anchor=False)
    st.markdown("What will the next run learn from, and is it what you think it is?")
    settings.recall_preset()
    settings.overrides()
    skill_choice.choose()
    config = settings.build()
    skill_choice.skill_set_of(config)
    return config


def names_of(source: Source) -> list[str]:
    """The skills in their order, which gives each its colour."""
    return list(skill_subject(source).skill_set.names)


def show_skills(source: Source) -> None:
    """A card for each skill: colour, rows, an example."""
    table, names = table_of(source, skills_table), names_of(source)
    palette = page_palette()
    style = styles(names, palette)
    single = table[table["skill"].isin([*names, "unlabelled"])]
    shown = table if single.empty else single
    if len(shown) > _MOST_CARDS:
        st.dataframe(shown, hide_index=True, height=320)
    else:
        with st.grid(4, min_column_width=230):
            for row in shown.to_dict("records"):
                with st.container(border=True):
                    colour = style[row["skill"]].colour if row["skill"] in style else palette.muted
                    st.html(_card(row, colour))
    several = len(table) - len(single)
    if several and not single.empty:
        n = int(table["n"].sum() - single["n"].sum())
        st.caption(f"Besides, {n:,} rows need two skills at once, in {several} combinations.")


def _card(row: dict, colour: str) -> str:
    counts = ", ".join(
        f"{split} {n:,}"
        for split, n in row.items()
        if split not in ("skill", "n", "prompt", "response") and n
    )
    return (
        f'<div style="overflow-wrap:anywhere"><span style="color:{colour}" aria-hidden="true">●'
        f"</span> <b>{escape(str(row['skill']))}</b> · {row['n']:,} rows<br>"
        f"<small>{escape(counts)}</small><br>"
        f"<small>{escape(_start(row['prompt']))}<br>→ {escape(_start(row['response']))}</small>"
        "</div>"
    )


def _start(text: str, most: int = 160) -> str:
    return text if len(text) <= most else text[:most] + " …"


def show_balance(source: Source) -> None:
    """Rows of each skill and split."""
    _BALANCE.show(source, options={"names": names_of(source)})


def show_unwritable(source: Source) -> None:
    """Whether the base can write the answers."""
    try:
        table = table_of(source, unwritable_table)
    except UnsupportedModelError as error:
        st.caption(f"Whether the base can write the answers is not known: {error}")
        return
    st.subheader("Can the base write every answer?", help=help_text("unwritable"), anchor=False)
    if (table["lost"] != "cut").any():
        st.warning(plain(say.sentence_unwritable(table)), icon=":material/block:")
    else:
        st.markdown(plain(say.sentence_unwritable(table)))
    if len(table):
        st.dataframe(table, hide_index=True, height=min(320, 38 + 35 * len(table)))
    show_data(table, "unwritable", command=command(source, unwritable_table, {}))


def show_special(source: Source) -> None:
    """Special tokens that texts spell."""
    table = table_of(source, special_table)
    if len(table):
        st.warning(plain(say.sentence_special(table)), icon=":material/code_off:")
        show_data(table, "special", command=command(source, special_table, {}))


def show_reading(source: Source, config: Config) -> None:
    """What decides how a row becomes tokens: base, template, limit; they can be changed here."""
    with st.grid(3, min_column_width=200):
        settings.draw("data.template", "template of a prompt")
        settings.draw("train.max_length", "longest row, in tokens")
        settings.draw("adapter.positions", "edited tokens")
    subject = skill_subject(source)
    st.caption(
        f"Read by the tokeniser of the base {verbatim(config.base.path)}, at most "
        f"{subject.max_length:,} tokens a row. Template: {verbatim(repr(subject.template))}."
    )


def show_batch(source: Source, config: Config) -> None:
    """A training batch as the trainer makes it, token by token."""
    st.subheader(batch_charts.QUESTION, help=help_text("batch"), anchor=False)
    step = st.number_input(
        "Training step",
        1,
        min(MOST_STEP, config.train.steps),
        key="batch-step",
        help="The batch of this step, in the order that the seed gives (`train.seed`).",
        width=200,
    )
    _check_batch(source, config)
    table = table_of(source, batch_table, step=int(step) - 1)
    options = {"names": names_of(source), "examples": _EXAMPLES}
    palette = page_palette()
    st.html(batch_charts.batch_html(table, palette=palette, **options))
    n = int(table["example"].max())
    st.caption(f"{min(n, _EXAMPLES)} of {n} examples; the table below has all of them.")
    st.markdown(plain(say.sentence_batch(table)))
    arguments = {"step": int(step) - 1}
    show_data(
        table,
        "batch",
        figure=lambda palette: batch_charts.batch_page(table, palette=palette, **options),
        code=code(source, batch_table, batch_charts.batch_page, arguments, options),
        command=command(source, batch_table, arguments),
    )


def _check_batch(source: Source, config: Config) -> None:
    """Refuse a batch that is too large to be drawn token by token."""
    lengths = table_of(source, lengths_table)
    longest = int(lengths[["tokens", "limit"]].min(axis=1).max())
    n = longest * (config.train.batch_size // config.train.accumulate)
    if n > MOST_TABLE_TOKENS:
        raise ConfigError(
            f"A batch of {config.train.batch_size:,} rows has up to {n:,} tokens; "
            f"{MOST_TABLE_TOKENS:,} can be shown here. Lower train.batch_size or train.max_length."
        )


def show_lengths(source: Source) -> None:
    """How long the rows are, and what is cut."""
    _LENGTHS.show(source)


def show_unknown(source: Source) -> None:
    """The words that the base has no token for."""
    table = table_of(source, unknown_table)
    st.subheader("Can the base read every word?", help=help_text("unknown"), anchor=False)
    if len(table):
        st.dataframe(table, hide_index=True, height=min(320, 38 + 35 * len(table)))
    st.markdown(plain(say.sentence_unknown(table)))
    show_data(table, "unknown", command=command(source, unknown_table, {}))


def show_leaks(source: Source) -> None:
    """Rows of one split that stand in another, and the rows themselves."""
    table = _LEAKS.show(source)
    if not (table["exact"] + table["near"]).any():
        return
    twins = table_of(source, twins_table)
    with st.expander(f"The {len(twins):,} rows with a twin", icon=":material/content_copy:"):
        st.dataframe(twins, hide_index=True, height=320)
        show_data(twins, "twins", command=command(source, twins_table, {}))


def show_similarity(source: Source) -> None:
    """How alike the skills' prompts are, next to each skill among itself."""
    _SIMILARITY.show(source, options={"names": names_of(source)})


def why_no_set() -> None:
    """What to do where no skill set can be shown."""
    st.info(
        "Choose a shipped skill set above, or give your own: the figures appear here.",
        icon=":material/info:",
    )


def to_training() -> None:
    """The way on."""
    st.page_link(
        "pages/Train.py", label="Train on this skill set", icon=":material/model_training:"
    )
