"""What is compared by default, and the ablations of CS-ReFT: label -> method."""

from collections.abc import Iterable, Mapping

from csreft_core.comparison.folder import Variant
from csreft_core.config import Config, preset, with_overrides
from csreft_core.errors import ConfigError
from csreft_core.methods.presets import METHODS, named_config

_CSREFT = preset("recommended")


def _variants(changes: Mapping[str, Iterable[str]]) -> dict[str, Variant]:
    return {
        label: Variant(config=with_overrides(_CSREFT, settings))
        for label, settings in changes.items()
    }


def _each(setting: str, values: Iterable[str]) -> dict[str, Variant]:
    return _variants({value: [f"{setting}={value}"] for value in values})


def _plain(*labels: str) -> dict[str, Variant]:
    return {label: Variant(config=named_config(label)) for label in labels}


def _skills(numbers: Iterable[int]) -> dict[str, Variant]:
    eight = with_overrides(_CSREFT, ["data.path=eight"])
    return {f"{n}_skills": Variant(config=eight, n_skills=n) for n in numbers}


COMPARISONS: dict[str, dict[str, Variant]] = {
    "main": _plain(*METHODS),
    "rank": _plain("csreft", "loreft", "oracle"),
    "constraint": _each(
        "adapter.constraint", ("none", "within", "joint", "penalty", "sequential", "fixed")
    ),
    "router_input": {
        **_each("router.input", ("first_token", "last_prompt_token", "mean_prompt")),
        **_plain("paper"),
    },
    "supervision": _plain("csreft", "unsupervised", "oracle"),
    "gate": _each("router.gate", ("sigmoid", "softmax", "hard", "top_k")),
    "granularity": _each("router.granularity", ("per_prompt", "per_token")),
    "skills": _skills(range(2, 9)),
    "positions": _variants(
        {
            rule: [f"adapter.positions={rule}"]
            for rule in ("l1", "f1", "f1+l1", "f2+l2", "all_prompt", "all")
        }
    ),
}
"""Name -> what is compared. All but `main` change one thing of CS-ReFT."""

COMPARISON_NOTES: dict[str, str] = {
    "main": "every method on the same data for the same steps",
    "rank": "CS-ReFT, one shared LoReFT of the same total rank, and given gates",
    "constraint": "what keeps the subspaces apart",
    "router_input": "what the router reads, with the paper's own router",
    "supervision": "a router that is taught the labels, one that is not, and given gates",
    "gate": "soft, exclusive or hard gates",
    "granularity": "gates for a prompt or for each token",
    "skills": "2 to 8 skills, of which the last two are pairs of others",
    "positions": "which tokens are edited",
}


def chosen_variants(
    name: str, methods: Iterable[str] = (), changes: Iterable[str] = ()
) -> dict[str, Variant]:
    """The variants of a comparison.

    Args:
        name: One of `COMPARISONS`.
        methods: Only these labels of it, in this order; empty means all.
        changes: Assignments such as `train.steps=200`, for every variant.

    Raises:
        ConfigError: an unknown name, label or setting.
    """
    if name not in COMPARISONS:
        raise ConfigError(f"unknown comparison {name!r}; choose one of {', '.join(COMPARISONS)}")
    variants, changes = COMPARISONS[name], list(changes)
    labels = list(methods) or list(variants)
    unknown = [label for label in labels if label not in variants]
    if unknown:
        raise ConfigError(
            f"comparison {name!r} has no method {unknown[0]!r}; choose from {', '.join(variants)}"
        )
    return {
        label: Variant(
            config=with_overrides(variants[label].config, changes),
            n_skills=variants[label].n_skills,
        )
        for label in labels
    }


def settings_of(variants: Mapping[str, Variant]) -> Config:
    """Settings of the first method; base and data are the same for all."""
    return next(iter(variants.values())).config
