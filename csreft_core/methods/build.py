"""Build, read and check any method by its name."""

from collections.abc import Callable
from pathlib import Path

import torch

from csreft_core.base.load import Base
from csreft_core.config import Config
from csreft_core.errors import AdapterError, ConfigError
from csreft_core.methods.block_outputs import RED, ParallelAdapter, SeriesAdapter
from csreft_core.methods.changed_base import ChangedBase, MethodSpec, read_method_file
from csreft_core.methods.lora_per_skill import LoRAPerSkill
from csreft_core.methods.own_weights import BitFit, FullFineTuning
from csreft_core.reft.adapter import build_adapter, check_claims, load_adapter
from csreft_core.reft.base_record import check_base
from csreft_core.reft.tuning import Tuning

_CLASSES: dict[str, Callable[[MethodSpec, Base, torch.Generator], ChangedBase]] = {
    "red": RED,
    "bitfit": BitFit,
    "lora_per_skill": LoRAPerSkill,
    "series_adapter": SeriesAdapter,
    "parallel_adapter": ParallelAdapter,
    "full": FullFineTuning,
}


_WITHOUT_SIZE = ("red", "bitfit", "ia3", "full")


def build_method(config: Config, base: Base, skills: tuple[str, ...]) -> Tuning:
    """A method at its start, on the device of the base.

    The base itself is not changed; that is for `Tuning.applied`.

    Args:
        config: Settings; `train.seed` decides the start.
        base: The frozen base.
        skills: Of the data.

    Raises:
        ConfigError: a method or settings that do not fit the base or the skills.
    """
    if config.method.name == "csreft":
        adapter = build_adapter(
            config,
            d_model=base.d_model,
            n_layers=base.n_layers,
            skills=skills,
            base_fingerprint=base.fingerprint,
        )
        return adapter.to(base.device)
    if config.method.name == "prefix" and config.train.checkpointing:
        raise ConfigError(
            "prefix tuning fills the key-value cache, which train.checkpointing would fill twice; "
            "set train.checkpointing to false"
        )
    spec = MethodSpec(
        d_model=base.d_model,
        n_layers=base.n_layers,
        skills=skills,
        base_fingerprint=base.fingerprint,
        method=config.method,
        router=config.router,
        seed=config.train.seed,
    )
    return _method_of(spec, base)


def _method_of(spec: MethodSpec, base: Base) -> ChangedBase:
    generator = torch.Generator().manual_seed(spec.seed)
    if spec.method.name in _CLASSES:
        return _CLASSES[spec.method.name](spec, base, generator)
    # peft takes seconds to import, which the other methods need not wait for.
    from csreft_core.methods.peft_methods import IA3, LoRA, PrefixTuning

    of_peft = {"lora": LoRA, "dora": LoRA, "ia3": IA3, "prefix": PrefixTuning}
    return of_peft[spec.method.name](spec, base, generator)


def _check_claims(
    path: Path, spec: MethodSpec, base: Base, tensors: dict[str, torch.Tensor]
) -> None:
    """See that a description fits the base and asks for no more than its file holds."""
    if (spec.d_model, spec.n_layers) != (base.d_model, base.n_layers):
        raise AdapterError(
            f"{path}: its description is of a base of {spec.n_layers} blocks of width "
            f"{spec.d_model}, but {base.id!r} has {base.n_layers} of {base.d_model}; the file was "
            "changed, train again"
        )
    if spec.method.name not in _WITHOUT_SIZE:
        # Two matrices in each block lead from its width to the size and back; a prefix has two
        # vectors, as narrow as the base's keys.
        width = 1 if spec.method.name == "prefix" else spec.d_model
        check_claims(path, 2 * len(spec.blocks) * spec.method.size * width, tensors)


def load_method(path: Path, base: Base) -> Tuning:
    """Read what a run has trained, CS-ReFT or any other method; in evaluation mode.

    Raises:
        AdapterError: no such file, damaged, or trained on another base.
    """
    content = read_method_file(path)
    if content is None:
        adapter = load_adapter(path)
        check_base(adapter.spec.base_fingerprint, base.fingerprint, base.id)
        return adapter.to(base.device)
    spec, tensors = content
    check_base(spec.base_fingerprint, base.fingerprint, base.id)
    _check_claims(path, spec, base, tensors)
    method = _method_of(spec, base)
    own = method.state_dict()
    same = own.keys() == tensors.keys() and all(
        own[name].shape == tensors[name].shape for name in own
    )
    if not same:
        raise AdapterError(
            f"{path}: its tensors do not have the names and shapes that its description asks for; "
            "the file was changed, train again"
        )
    method.load_state_dict(tensors)
    return method.eval()
