"""How long a text one vector gives back, as tidy tables; made by the command `memorise`.

ReFT, appendix F.1, with its controls: the words of the text in random order, and words drawn at
random. The interval is over seeds, which differ in the text and in the start of the edit.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from csreft_core.analysis.claims.runs import Measurement
from csreft_core.analysis.labels import SCRAMBLED, TEXT
from csreft_core.analysis.statistics.seed_intervals import paired_differences, seed_mean
from csreft_core.config import ASSETS
from csreft_core.errors import RunError

TABLES = ("shares", "trials")
"""The tables of this view, `NAME_table`; the first is what `judge memorisation` prints."""

MEMORISED = str(ASSETS / "memorisation.json")
"""The shipped results."""

_COLUMNS = ["kind", "layer", "tokens", "seed", "n", "given_back", "loss", "parameters"]


def trials_table(*, memorised: str = MEMORISED) -> pd.DataFrame:
    """Every text that was learned.

    Args:
        memorised: The `memorisation.json` of `memorise`.

    Returns:
        Columns kind (text, scrambled, random), layer, tokens (asked for), seed, n (tokens that
        were learned), given_back (tokens from the beginning that greedy decoding gives), loss (nats
        per token), parameters, share (given_back / n, 0 to 1).

    Raises:
        RunError: the file is missing or damaged.
    """
    table = pd.DataFrame(_read(memorised)["rows"], columns=_COLUMNS)
    return table.assign(share=table["given_back"] / table["n"])


def shares_table(*, memorised: str = MEMORISED) -> pd.DataFrame:
    """The share of a text that comes back, by its kind and length.

    Args:
        memorised: See `trials_table`.

    Returns:
        Columns kind, layer, tokens, share (0 to 1, mean over seeds), low, high (95 % interval),
        seeds, parameters.
    """
    rows = []
    table = trials_table(memorised=memorised)
    for (kind, layer, tokens), part in table.groupby(["kind", "layer", "tokens"], sort=False):
        mean = seed_mean(part["share"].tolist())
        rows.append(
            (
                kind,
                layer,
                tokens,
                mean.value,
                mean.low,
                mean.high,
                len(part),
                int(part["parameters"].iloc[0]),
            )
        )
    columns = ["kind", "layer", "tokens", "share", "low", "high", "seeds", "parameters"]
    return pd.DataFrame(rows, columns=columns)


def memory_measurements(memorised: str = MEMORISED) -> list[Measurement]:
    """R3 on the longest text, on the first layer: see `claims.rules.judge_conditions`.

    No row if nothing is there.
    """
    if not Path(memorised).is_file():
        return []
    table = trials_table(memorised=memorised)
    table = table[
        (table["layer"] == table["layer"].iloc[0]) & (table["tokens"] == table["tokens"].max())
    ].rename(columns={"kind": "method"})
    own = table.loc[table["method"] == TEXT, "share"].tolist()
    values = {
        "R3.text": (own, table.loc[table["method"] == SCRAMBLED, "share"].mean()),
        "R3.scrambled": (paired_differences(table, "share", TEXT, SCRAMBLED), float("nan")),
    }
    rows = []
    for name, (estimates, control) in values.items():
        mean = seed_mean(estimates)
        rows.append(
            {
                "condition": name,
                "value": mean.value,
                "low": mean.low,
                "high": mean.high,
                "control_value": control,
                "n": 1,
                "seeds": len(estimates),
                "over": "seeds",
                "source": f"texts of {table['tokens'].max()} tokens",
            }
        )
    return rows


def _read(memorised: str) -> dict[str, Any]:
    path = Path(memorised)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise RunError(
            f"{path}: no such file; make it with: memorise --out {path.parent}"
        ) from None
    except ValueError:
        record = None
    if not isinstance(record, dict) or not {"rows", "command"} <= set(record):
        raise RunError(f"{path}: is broken; make it again with: memorise --out {path.parent}")
    return record
