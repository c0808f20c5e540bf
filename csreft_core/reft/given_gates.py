"""The gates of a setting that asks no router, as numbers."""

import torch
from jaxtyping import Float
from torch import Tensor

from csreft_core.errors import ConfigError
from csreft_core.reft.gate_settings import GateSetting


def given_gates(
    setting: GateSetting, n: int, labels: Float[Tensor, "batch k"] | None = None
) -> Float[Tensor, "batch k"] | None:
    """Gates of n prompts, or None where the router decides.

    Raises:
        ConfigError: `oracle` without labels.
    """
    if setting.needs_router:
        return None
    if setting.kind == "given":
        return torch.tensor(setting.vector).expand(n, -1)
    if labels is None:
        raise ConfigError(
            "gate setting 'oracle' needs the skill of each prompt; "
            "use a skill file with labels, or the gate setting 'learned'"
        )
    return labels
