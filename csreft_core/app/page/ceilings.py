"""How much a visitor of the pages may ask for. The command line may go higher.

A page is open to everyone who has its address, and an address can hold any number. Whatever decides
how long something takes or how much memory it needs has its ceiling here, and is held against it
before anything is computed.
"""

from typing import Any

from csreft_core.errors import ConfigError

MOST_CHARACTERS = 2_000
"""Of a text that is typed or stands in an address."""
MOST_SETTINGS = 100
"""Settings in an address."""
MOST_UPLOAD_BYTES = 5_000_000
MOST_UPLOAD_ROWS = 5_000
MOST_NEW_TOKENS = 512
"""Tokens of an answer."""
MOST_STEP = 100_000
"""The training step whose batch is shown."""
MOST_TABLE_TOKENS = 100_000
"""Tokens of a batch that is shown one by one."""
MOST_WAITING = 20
"""Runs in the queue. Each waits in a process of its own."""
MOST_FILE_BYTES = 64_000_000
"""Of a file of a run that a page reads whole."""

SETTINGS: dict[str, float] = {
    "adapter.rank": 1_024,
    "adapter.n_subspaces": 64,
    "adapter.penalty": 1e6,
    "method.size": 16_384,
    "method.scale": 1e6,
    "method.penalty": 1e6,
    "router.layer": 1_000,
    "router.hidden": 16_384,
    "router.top_k": 64,
    "router.temperature": 1e6,
    "router.supervision": 1e6,
    "router.sparsity": 1e6,
    "train.steps": 100_000,
    "train.batch_size": 1_024,
    "train.accumulate": 1_024,
    "train.lr": 1e6,
    "train.router_lr": 1e6,
    "train.weight_decay": 1e6,
    "train.seed": 2**32 - 1,
    "train.threads": 256,
    "train.eval_every": 100_000,
    "train.checkpoint_every": 100_000,
    "train.keep_states_gib": 64,
    "train.max_length": 8_192,
}
"""The largest value of a setting that is a number."""
_MOST_LAYERS = 256
_MOST_POSITIONS = 4_096


def check_setting(path: str, value: Any) -> None:
    """Hold a value, fitting or not, against the ceilings.

    Args:
        path: Of a setting, such as `train.steps`.
        value: What was asked for.

    Raises:
        ConfigError: it is above its ceiling.
    """
    most = SETTINGS.get(path)
    if most is not None and isinstance(value, int | float) and not value <= most:
        _refuse(path, f"{value}", f"up to {most:,.0f}")
    if isinstance(value, str) and len(value) > MOST_CHARACTERS:
        _refuse(path, f"a text of {len(value):,} characters", f"up to {MOST_CHARACTERS:,}")
    if isinstance(value, list | dict) and len(value) > _MOST_LAYERS:
        _refuse(path, f"{len(value):,} values", f"up to {_MOST_LAYERS}")
    if path == "adapter.positions" and isinstance(value, str):
        counts = [int(part[1:]) for part in value.split("+") if part[1:].isdecimal()]
        if max(counts, default=0) > _MOST_POSITIONS:
            _refuse(path, value, f"up to {_MOST_POSITIONS:,} tokens")


def _refuse(path: str, value: str, taken: str) -> None:
    raise ConfigError(
        f"{path}: {value[:60]} is more than the pages take, {taken}; the command line takes more"
    )
