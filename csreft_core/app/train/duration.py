"""Beside the start of a training: its base, its data, and about how long it will take."""

import streamlit as st

from csreft_core.app.page import base_loading, cached
from csreft_core.app.page.markup import verbatim
from csreft_core.app.page.widgets import duration
from csreft_core.base.text.chat_templates import resolve_template
from csreft_core.config import Config, known_bases
from csreft_core.inference.loaded_bases import LoadedBase
from csreft_core.skills.encoding import encode
from csreft_core.skills.skill_set import SkillSet
from csreft_core.training.duration import training_seconds

_SAMPLE = 32


def show(config: Config, skill_set: SkillSet) -> None:
    """What is going to be trained, and the time; a base that is not in memory is offered.

    Args:
        config: Of the run.
        skill_set: Its data.
    """
    base = config.base
    known = known_bases().get(base.path)
    name = f" ({known.name})" if known is not None else ""
    n = len(skill_set.split("train"))
    st.markdown(
        f"**Base** {verbatim(base.path)}{name} · **data** {verbatim(config.data.path)}, {n:,} "
        f"training prompts · {config.train.steps:,} steps of {config.train.batch_size}"
    )
    held = cached.bases().find(base)
    if held is None and base_loading.loads_at_once(base):
        cached.engine_of_base(base)
        held = cached.bases().find(base)
    if held is None:
        missing = base_loading.is_missing(base)
        first = "fetched: only then a run can start" if missing else "in memory"
        st.caption(f"How long it takes is said here once the base is {first}.")
        base_loading.show(base)
        return
    takes = duration(_rounded(_seconds(held, config, skill_set)))
    st.caption(f"About {takes} on this machine, where nothing else runs on it.")


def _seconds(held: LoadedBase, config: Config, skill_set: SkillSet) -> float:
    base = held.engine.base
    template = resolve_template(config.data.template, base.tokenizer)
    rows = skill_set.split("train")
    sample = rows[:: max(1, len(rows) // _SAMPLE)]
    examples, _ = encode(sample, base.tokenizer, template, config.train.max_length)
    lengths = [len(example.prompt) + len(example.answer) for example in examples]
    splits = skill_set.splits
    return training_seconds(
        config,
        held.speed,
        n_layers=base.n_layers,
        length=sum(lengths) / len(lengths),
        n_validation=len(skill_set.split("validation" if "validation" in splits else "train")),
    )


def _rounded(seconds: float) -> float:
    """To one digit below ten seconds, to ten seconds below ten minutes, else to minutes."""
    step = 1 if seconds < 10 else 10 if seconds < 600 else 60
    return max(step, round(seconds / step) * step)
