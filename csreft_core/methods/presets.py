"""The methods that are compared: a label, a name for people, and a preset for each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from csreft_core.config import (
    PRESET_NOTES,
    PRESETS,
    Config,
    MethodConfig,
    MethodName,
    configured,
    with_overrides,
)
from csreft_core.errors import ConfigError

OWN = "csreft"
"""The label of CS-ReFT itself."""


@dataclass(frozen=True)
class Method:
    """A method as it is trained by default.

    Attributes:
        name: For people.
        config: Its preset.
        note: What it is, in a sentence.
    """

    name: str
    config: Config
    note: str


_CSREFT, _LOREFT = PRESETS["recommended"], PRESETS["loreft"]


def _edit(**settings: object) -> Config:
    """One shared edit of the same total rank, of another form."""
    return replace(_LOREFT, adapter=replace(_LOREFT.adapter, **settings))  # type: ignore[arg-type]


def _other(name: MethodName, lr: float, *, router: bool = False, **settings: object) -> Config:
    start = _CSREFT if router else replace(_LOREFT, adapter=_CSREFT.adapter)
    return replace(
        start,
        method=MethodConfig(name=name, **settings),  # type: ignore[arg-type]
        train=replace(start.train, lr=lr),
    )


METHODS: dict[str, Method] = {
    "csreft": Method("CS-ReFT", _CSREFT, PRESET_NOTES["recommended"]),
    "loreft": Method("LoReFT (shared)", _LOREFT, PRESET_NOTES["loreft"]),
    "direft": Method(
        "DiReFT",
        _edit(form="direft", constraint="none"),
        "One edit R'(Wh + b) with free rows, as the ReFT paper has it.",
    ),
    "pyreft_direft": Method(
        "DiReFT (pyreft)",
        _edit(form="direft", constraint="within"),
        "The same with an orthonormal R, which pyreft calls DiReFT.",
    ),
    "noreft": Method("NoReFT", _edit(form="noreft", constraint="none"), "LoReFT with free rows."),
    "consreft": Method(
        "ConsReFT",
        _edit(form="consreft", init="random"),
        "LoReFT without W: the coordinates become a constant.",
    ),
    "lobireft": Method(
        "LobiReFT", _edit(form="lobireft"), "Adds a constant from a subspace of low rank."
    ),
    "red": Method(
        "RED", _other("red", 5e-2), "Scales and shifts the output of every block, at all tokens."
    ),
    "bitfit": Method("BitFit", _other("bitfit", 1e-2), "Trains the biases of the base."),
    "lora": Method("LoRA", _other("lora", 5e-3), "Low-rank changes of every linear layer."),
    "dora": Method("DoRA", _other("dora", 5e-3), "LoRA with the length of each row apart."),
    "prefix": Method("Prefix tuning", _other("prefix", 5e-2), "Keys and values before the text."),
    "ia3": Method("IA³", _other("ia3", 2e-2), "Scales keys, values and the feed-forward state."),
    "lora_per_skill": Method(
        "LoRA per skill",
        _other("lora_per_skill", 5e-3, router=True, size=1),
        "A LoRA for each skill on the same layers, mixed by the router of CS-ReFT.",
    ),
    "olora": Method(
        "O-LoRA",
        _other("lora_per_skill", 5e-3, router=True, size=1, penalty=0.1),
        "LoRA per skill with O-LoRA's penalty on the overlap of their A matrices.",
    ),
    "series_adapter": Method(
        "Series adapter", _other("series_adapter", 5e-3), "A bottleneck after every block."
    ),
    "parallel_adapter": Method(
        "Parallel adapter", _other("parallel_adapter", 5e-3), "A bottleneck beside every block."
    ),
    "full": Method("Full fine-tuning", _other("full", 3e-4), "Trains every weight of the base."),
}
"""Label -> method, in the order in which tables show them."""


def method_name(label: str) -> str:
    """The name of a method for people; a label that is no method's stands for itself."""
    return METHODS[label].name if label in METHODS else label


def named_config(name: str, changes: Sequence[str] = ()) -> Config:
    """A preset or a method's preset by its name, with changes as `with_overrides` reads them.

    A preset is taken as it is on the base that the changes name.

    Raises:
        ConfigError: unknown name, or a change that is none.
    """
    if name in PRESETS:
        return configured(name, changes)
    if name not in METHODS:
        known = ", ".join(dict.fromkeys([*PRESETS, *METHODS]))
        raise ConfigError(f"unknown preset {name!r}; choose one of {known}")
    return with_overrides(METHODS[name].config, changes)
