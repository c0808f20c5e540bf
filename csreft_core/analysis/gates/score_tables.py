"""What gates cost as tidy tables: losses under each setting, and over the threshold."""

from collections.abc import Sequence

import pandas as pd

from csreft_core.analysis.gates.scores import score_settings, score_sweep
from csreft_core.analysis.gates.sources import (
    gate_sources,
    other_name,
)
from csreft_core.analysis.subject import Subject, beside
from csreft_core.errors import ConfigError


def settings_table(
    subject: Subject,
    *,
    split: str = "test",
    per_skill: int | None = None,
    others: Sequence[str] = (),
) -> pd.DataFrame:
    """How well held-out prompts are answered under learned gates and under controls.

    Arguments and errors as in `distribution_table`.

    Returns:
        Columns source (also `hard`, the learned gates at their threshold, and `off`, the bare
        base), loss (nats per answer token), exact_match (0 to 1, teacher-forced), both plain
        means over the skills as in `scoring.evaluate`; gap (loss minus that of the run's own
        gates, nats, paired by prompts); each with _low and _high (95 % interval);
        n (prompts), over (what the intervals are over).
    """
    rows = subject.split(split, per_skill)
    return score_settings(subject, rows, gate_sources(subject, rows, others))


def sweep_table(
    subject: Subject,
    *,
    split: str = "test",
    per_skill: int | None = 20,
    others: Sequence[str] = (),
    steps: int = 21,
) -> pd.DataFrame:
    """Loss and exact match when every gate above a threshold is set to 1 and the others to 0.

    Arguments and errors as in `distribution_table`; other runs without a router are left out.

    Args:
        steps: How many thresholds from 0 to 1, both included.

    Returns:
        Columns source, gates (`soft`, as learned; `hard`, at the threshold), threshold (0 to 1;
        NaN for soft), n_open (mean number of open gates), and, as in `settings_table`, loss,
        exact_match and gap (loss minus that of the soft gates), each with _low and _high, n, over.

    Raises:
        ConfigError: the run has no router, so it has no gates to cut.
    """
    rows = subject.split(split, per_skill)
    if subject.adapter.router is None:
        raise ConfigError("this adapter has no router, so there are no learned gates to cut")
    controls = [beside(subject, path) for path in others]
    named = [(other_name(c), c) for c in controls if c.adapter.router is not None]
    return pd.concat(
        [score_sweep(name, whose, rows, steps) for name, whose in (("learned", subject), *named)],
        ignore_index=True,
    )
