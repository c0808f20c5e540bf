"""The presets, and which of them a config is nearest to."""

from dataclasses import replace

from csreft_core.config.text import assignments
from csreft_core.config.tree import Config, RouterConfig
from csreft_core.errors import ConfigError

_RECOMMENDED = Config(router=RouterConfig(supervision=1.0))

PRESETS: dict[str, Config] = {
    "recommended": _RECOMMENDED,
    "paper": replace(
        _RECOMMENDED,
        router=RouterConfig(input="first_token", hidden="paper", omega="l1", sparsity=1e-3),
    ),
    "loreft": replace(
        _RECOMMENDED,
        adapter=replace(_RECOMMENDED.adapter, n_subspaces=1, rank=8),
        router=RouterConfig(gates="uniform"),
    ),
    "oracle": replace(_RECOMMENDED, router=RouterConfig(gates="oracle")),
    "unsupervised": replace(_RECOMMENDED, router=RouterConfig()),
}

PRESET_NOTES: dict[str, str] = {
    "recommended": "One subspace a skill, jointly orthonormal; the router reads the mean of the "
    "prompt and is taught the skill labels.",
    "paper": "As the paper states it: four subspaces, a router on the first token (d, d/2, 4), "
    "sigmoid gates, a sparsity term; threshold 0.5 with the gate setting 'hard'.",
    "loreft": "One LoReFT edit of the same total rank for all skills, no router: the control.",
    "oracle": "Gates given by the skill labels, no router: the upper control.",
    "unsupervised": "The router learns from the task loss alone, without labels.",
}


def preset(name: str) -> Config:
    """The named preset.

    Raises:
        ConfigError: unknown name.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def nearest_preset(config: Config) -> tuple[str, list[str]]:
    """The preset from which the fewest assignments lead to a config, and these."""
    leads = {name: assignments(start, config) for name, start in PRESETS.items()}
    nearest = min(leads, key=lambda name: len(leads[name]))
    return nearest, leads[nearest]
