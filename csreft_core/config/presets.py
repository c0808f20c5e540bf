"""The presets, as they are on each base, and which of them a config is nearest to."""

from collections.abc import Iterable
from dataclasses import replace

from csreft_core.config.bases import known_bases
from csreft_core.config.text import assignments, with_overrides
from csreft_core.config.tree import (
    PLAIN_TEMPLATE,
    AdapterConfig,
    BaseConfig,
    Config,
    DataConfig,
    RouterConfig,
    TrainConfig,
)
from csreft_core.errors import ConfigError

_RECOMMENDED = Config(router=RouterConfig(supervision=1.0))


def _variants(recommended: Config, *, shared_rank: int) -> dict[str, Config]:
    """The presets of a base: its recommended one, and what it is held against."""
    router = recommended.router
    return {
        "recommended": recommended,
        "paper": replace(
            recommended,
            router=RouterConfig(input="first_token", hidden="paper", omega="l1", sparsity=1e-3),
        ),
        "loreft": replace(
            recommended,
            adapter=replace(recommended.adapter, n_subspaces=1, rank=shared_rank),
            router=RouterConfig(gates="uniform"),
        ),
        "oracle": replace(recommended, router=RouterConfig(gates="oracle")),
        "unsupervised": replace(recommended, router=replace(router, supervision=0.0)),
    }


PRESETS: dict[str, Config] = _variants(_RECOMMENDED, shared_rank=8)
"""The presets on the pocket base, and on any base without a recipe of its own."""

_ON_SMOLLM2 = Config(
    base=BaseConfig(path="smollm2"),
    # Answers begin with a space in the plain template, as words do in what the base has read.
    data=DataConfig(path=known_bases()["smollm2"].skills, template=PLAIN_TEMPLATE),
    adapter=AdapterConfig(layers=(8, 14), rank=4),
    router=RouterConfig(layer=3, standardize=True, supervision=1.0),
    train=TrainConfig(steps=140, lr=1e-2, eval_every=70, checkpoint_every=35),
)
RECIPES: dict[str, dict[str, Config]] = {
    PRESETS["recommended"].base.path: PRESETS,
    _ON_SMOLLM2.base.path: _variants(_ON_SMOLLM2, shared_rank=24),
}
"""The presets on each base that has a recipe of its own, by `base.path`."""

PRESET_NOTES: dict[str, str] = {
    "recommended": "One subspace a skill, jointly orthonormal; the router reads the mean of the "
    "prompt and is taught the skill labels.",
    "paper": "As the paper states it: four subspaces, a router on the first token (d, d/2, 4), "
    "sigmoid gates, a sparsity term; threshold 0.5 with the gate setting 'hard'.",
    "loreft": "One LoReFT edit of the same total rank for all skills, no router: the control.",
    "oracle": "Gates given by the skill labels, no router: the upper control.",
    "unsupervised": "The router learns from the task loss alone, without labels.",
}


def preset(name: str, base: str = "pocket") -> Config:
    """The named preset, as it is on a base.

    Args:
        name: One of `PRESETS`.
        base: A `base.path`. One without a recipe of its own takes the pocket base's; the preset
            does not name it then.

    Raises:
        ConfigError: unknown name.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
    return RECIPES.get(base, PRESETS)[name]


def configured(name: str, changes: Iterable[str]) -> Config:
    """The named preset, as it is on the base that the changes name, with the changes.

    Args:
        name: One of `PRESETS`.
        changes: As `with_overrides` reads them.

    Raises:
        ConfigError: unknown name, or a change that is none.
    """
    changes = list(changes)
    of_base = [change for change in changes if change.partition("=")[0].strip() == "base.path"]
    base = with_overrides(PRESETS["recommended"], of_base).base.path
    return with_overrides(preset(name, base), changes)


def lead(name: str, config: Config) -> list[str]:
    """The changes with which `configured` makes a config of a preset."""
    base = config.base.path
    changes = assignments(preset(name, base), config)
    own_recipe = base in RECIPES and base != PRESETS[name].base.path
    return [f"base.path={base}", *changes] if own_recipe else changes


def nearest_preset(config: Config) -> tuple[str, list[str]]:
    """The preset from which the fewest changes lead to a config, and these."""
    leads = {name: lead(name, config) for name in PRESETS}
    nearest = min(leads, key=lambda name: len(leads[name]))
    return nearest, leads[nearest]
