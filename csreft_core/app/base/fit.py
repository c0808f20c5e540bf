"""Whether a base fits: what it needs for batches of a size, what is free, and what would fit."""

import shlex
from dataclasses import replace

import streamlit as st

from csreft_core.analysis.base import sentences as say
from csreft_core.analysis.base import tables
from csreft_core.app.page import settings
from csreft_core.app.page.base_folders import limiting_folder
from csreft_core.app.page.choices import SEGMENTS, choose
from csreft_core.app.page.markup import verbatim
from csreft_core.app.page.parts import fold
from csreft_core.app.page.state import keep
from csreft_core.app.page.widgets import help_text, show_chart
from csreft_core.base.devices import free_bytes
from csreft_core.base.memory.need import in_gb, row_length, rows_at_a_time, smaller_setting
from csreft_core.base.shapes import Shape
from csreft_core.charts import base as charts
from csreft_core.config import Config, assignments, lead

TRAINING, ANSWERING = "training", "answering"
_FOR = {TRAINING: "Training", ANSWERING: "Answering a prompt"}
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_OWN = {"base.precision": "precision", "base.compute": "compute", "train.max_length": "length"}
_PRECISIONS = ("fp32", "bf16", "nf4")


def choose_batch(config: Config, shape: Shape) -> Config:
    """The config with the batch size and the length of the sliders."""
    longest = shape.context or _LENGTHS[-1]
    batch = _slider("batch", "Rows in a step", _BATCHES, config.train.batch_size)
    lengths = tuple(n for n in _LENGTHS if n <= longest)
    length = _slider("length", "Tokens in a row", lengths, row_length(shape, config))
    train = config.train
    split = min(train.accumulate, batch)  # no more micro-batches than rows
    train = replace(train, batch_size=batch, max_length=length, accumulate=split)
    return replace(config, train=train)


def _slider(name: str, label: str, steps: tuple[int, ...], default: int) -> int:
    options = [str(n) for n in sorted({*steps, default})]
    help = help_text(f"fit_{name}")
    return int(choose(name, label, options, str(default), widget=st.select_slider, help=help))


def choose_purpose() -> bool:
    """Whether the memory is needed for training, or for answering prompts only."""
    purpose = choose("for", "Memory for", _FOR, widget=SEGMENTS, help=help_text("fit_for"))
    return purpose == TRAINING


def has_room(config: Config) -> bool:
    """Whether the weights of the base fit, with one short prompt."""
    short = replace(config, train=replace(config.train, max_length=16))
    return tables.needed(short, training=False).total <= free_bytes(config.base.device)


def show_need(config: Config, shape: Shape, *, training: bool) -> None:
    """What is needed, in parts, beside what is free; where it is too much, what would fit."""
    table = tables.need_table(config, training=training)
    rows, length = rows_at_a_time(config) if training else 1, row_length(shape, config)
    of = f"{rows} row{'s' * (rows > 1)} of {length} tokens"
    show_chart(
        charts.need_bars,
        table,
        name="need",
        sentence=say.sentence_need(table, f"{_FOR[TRAINING if training else ANSWERING]}, {of},"),
        code=code(config, training=training),
        command=command(config),
    )
    needed = int(table.loc[table["kind"] == "needed", "bytes"].sum())
    free = int(table.loc[table["kind"] == "free", "bytes"].iloc[0])
    if training and needed > free:
        _show_smaller(config, shape, free)


def _show_smaller(config: Config, shape: Shape, free: int) -> None:
    smaller = smaller_setting(shape, config, free)
    if smaller is None:
        st.warning(
            "No batch and no precision makes a training on this base fit into what is free. Choose "
            "a smaller base.",
            icon=":material/warning:",
        )
        return
    changed = assignments(config, smaller)
    listed = ", ".join(map(verbatim, changed))
    st.info(
        f"It fits with {listed}: {in_gb(tables.needed(smaller).total)}.",
        icon=":material/lightbulb:",
    )
    st.button(
        "Take this setting",
        key="smaller",
        on_click=_take,
        args=(changed,),
        help=help_text("smaller"),
    )


def _take(changed: list[str]) -> None:
    """What this page chooses is set here, the rest in the settings of the next run."""
    for assignment in changed:
        path, _, text = assignment.partition("=")
        if path in _OWN:
            keep(_OWN[path], text)
        else:
            settings.assign(assignment)


def code(config: Config, *, training: bool) -> str:
    """Python that makes the figure of the need."""
    name = st.session_state["preset"]
    return "\n".join(
        (
            "from csreft_core.analysis.base import tables",
            "from csreft_core.charts import base as charts",
            "from csreft_core.config import configured",
            "",
            f"config = configured({name!r}, {lead(name, config)!r})",
            f"table = tables.need_table(config, training={training})",
            "charts.need_bars(table).show()",
        )
    )


def command(config: Config) -> str:
    """The command that prints the need, for training and for answering."""
    name = st.session_state["preset"]
    words = ["python", "-m", "csreft_core", "memory", "--preset", name]
    for change in lead(name, config):
        words += ["--set", change]
    return shlex.join(words)


def show_known(config: Config) -> None:
    """Which of the known bases fit on this machine; counted when it is opened."""
    if limiting_folder() is not None:
        return
    fold(
        "Which of the known bases fit on this machine?",
        lambda: _show_known(config.base.device),
        key="known-panel",
        icon=":material/straighten:",
    )


def _show_known(device: str) -> None:
    with st.spinner("Counting the parameters of the known bases …"):
        table = tables.known_bases_table(_PRECISIONS, device=device)
        show_chart(
            charts.base_sizes,
            table,
            name="known",
            sentence=" ".join(say.sentence_known(table, precision) for precision in _PRECISIONS),
            code=_code_known(device),
        )


def _code_known(device: str) -> str:
    return "\n".join(
        (
            "from csreft_core.analysis.base import tables",
            "from csreft_core.charts import base as charts",
            "",
            f"table = tables.known_bases_table({_PRECISIONS!r}, device={device!r})",
            "charts.base_sizes(table).show()",
        )
    )
