"""LoRA, DoRA, IA³ and prefix tuning, by the library peft.

peft works on the model that it is given. Here what it did is taken out again and put in while the
method is applied, so that the base stays as it is.
"""

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import IA3Config, LoraConfig, PrefixTuningConfig, inject_adapter_in_model
from peft.peft_model import PeftModelForCausalLM
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from csreft_core.base.library_calls import cache_argument, named_inputs, read_call
from csreft_core.base.load import Base
from csreft_core.errors import ConfigError
from csreft_core.methods.changed_base import (
    ChangedBase,
    MethodSpec,
    in_and_out,
    key,
    linear_layers,
)


class _Injected(ChangedBase):
    """Layers that peft puts in the place of linear layers."""

    def __init__(self, spec: MethodSpec, base: Base, generator: torch.Generator) -> None:
        super().__init__(spec)
        model, config = base.model, self.peft_config(base)
        self._swaps: list[tuple[nn.Module, str, nn.Module, nn.Module]] = []
        names = sorted(config.target_modules)  # peft shortens its own list
        before = dict(model.named_modules())
        with _seeding(generator, base.device), _same_attributes(model):
            inject_adapter_in_model(config, model)
        for name in names:
            parent, _, last = name.rpartition(".")
            new = model.get_submodule(name)
            self._swaps.append((before[parent], last, before[name], new))
            for part, parameter in new.named_parameters():
                if parameter.requires_grad:
                    self.trained[key(f"{name}.{part}")] = parameter
        self._put(new=False)

    def peft_config(self, base: Base) -> Any:
        """peft's description of the method, with the full names of the layers."""
        raise NotImplementedError

    def change(self, current_pass: Callable[[], Any]) -> Callable[[], None]:  # noqa: ARG002
        """Put peft's layers in."""
        self._put(new=True)
        return lambda: self._put(new=False)

    def _put(self, *, new: bool) -> None:
        for parent, last, own, theirs in self._swaps:
            parent._modules[last] = theirs if new else own


class LoRA(_Injected):
    """$W' = W + s B A$ on every linear layer of the blocks (Hu et al. 2021, arXiv 2106.09685).

    s is `method.scale`. DoRA (Liu et al. 2024, arXiv 2402.09353) trains the length of each row of
    $W'$ apart from its direction.
    """

    def peft_config(self, base: Base) -> LoraConfig:
        """See `_Injected.peft_config`."""
        method, layers = self.spec.method, linear_layers(base, self.spec.blocks)
        return LoraConfig(
            r=method.size,
            lora_alpha=method.scale * method.size,  # type: ignore[arg-type]
            use_dora=method.name == "dora",
            target_modules=[*layers],
            fan_in_fan_out=_are_transposed(layers),
        )


class IA3(_Injected):
    """Scales keys, values and the feed-forward state (Liu et al. 2022, arXiv 2205.05638).

    Raises:
        ConfigError: no linear layer of the base looks like one of them.
    """

    def peft_config(self, base: Base) -> IA3Config:
        """See `_Injected.peft_config`."""
        layers = linear_layers(base, self.spec.blocks)
        inner = [name for name, layer in layers.items() if _leaves_feed_forward(base, layer)]
        attention = [name for name, layer in layers.items() if _is_key_or_value(name, layer)]
        if not inner or not attention:
            raise ConfigError(
                f"IA³ needs key, value and feed-forward layers, and the blocks of {base.id!r} have "
                f"only {', '.join(sorted({n.rsplit('.', 1)[-1] for n in layers}))}; choose "
                "another method"
            )
        return IA3Config(
            target_modules=[*attention, *inner],
            feedforward_modules=inner,
            fan_in_fan_out=_are_transposed(layers),
        )


def _are_transposed(layers: dict[str, nn.Module]) -> bool:
    return all(isinstance(layer, Conv1D) for layer in layers.values())


def _leaves_feed_forward(base: Base, layer: nn.Module) -> bool:
    """Whether it leads from a wider state back to the width of the base."""
    n_in, n_out = in_and_out(layer)
    return n_out == base.d_model < n_in


def _is_key_or_value(name: str, layer: nn.Module) -> bool:
    """Whether its name has `k`, `v`, `key`, `value` or `qkv`, or it gives all three at once."""
    n_in, n_out = in_and_out(layer)
    words = set(re.split(r"[_.]", name.rsplit(".", 1)[-1].lower()))
    return bool(words & {"k", "v", "key", "value", "qkv"}) or n_out == 3 * n_in


class PrefixTuning(ChangedBase):
    """Keys and values of m virtual tokens before the text, in every block (Li and Liang 2021).

    Positions of the text begin at m, as peft has them.
    """

    def __init__(self, spec: MethodSpec, base: Base, generator: torch.Generator) -> None:
        super().__init__(spec)
        config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=spec.method.size)
        with (
            _seeding(generator, base.device),
            _same_attributes(base.model),
            warnings.catch_warnings(),
        ):
            # It asks the model for an attribute that newer versions of transformers rename.
            warnings.simplefilter("ignore", FutureWarning)
            peft_model = PeftModelForCausalLM(base.model, config)
        for name, parameter in peft_model.prompt_encoder.named_parameters():
            self.trained[key(name)] = parameter
        # Neither is a part of this module, whose parameters are those above.
        self._base = base
        self._prefix: Callable[[int], Any] = peft_model.get_prompt
        self._n = spec.method.size

    def change(self, current_pass: Callable[[], Any]) -> Callable[[], None]:  # noqa: ARG002
        """Give every forward of the base a filled key-value cache."""
        return self._base.model.register_forward_pre_hook(self._before, with_kwargs=True).remove

    def _before(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        call = read_call(named_inputs(model, args, kwargs))
        if call.cached is not None and call.use_cache is False:
            # Rows are whole; `generate` hands back the prefix that the last forward has filled up.
            kwargs.pop(call.cached.name)
        if call.cached is None or call.use_cache is False:
            kwargs[cache_argument(model)] = self._prefix(len(call.tokens))
        elif call.cached.length() == 0:
            for layer, states in enumerate(self._prefix(len(call.tokens)).layers):
                call.cached.cache.update(states.keys, states.values, layer)
        for name, value in (("attention_mask", 1), ("prompt_mask", 0)):
            if isinstance(kwargs.get(name), Tensor):
                mask = kwargs[name]
                kwargs[name] = torch.cat([mask.new_full((len(mask), self._n), value), mask], 1)
        if isinstance(kwargs.get("position_ids"), Tensor):
            kwargs["position_ids"] = kwargs["position_ids"] + self._n
        return args, kwargs


@contextmanager
def _seeding(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """peft draws from the global random state, which is the same afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(generator.initial_seed())
        yield


@contextmanager
def _same_attributes(model: nn.Module) -> Iterator[None]:
    """What peft notes on the model is taken away again."""
    before = set(model.__dict__)
    try:
        yield
    finally:
        for name in set(model.__dict__) - before:
            del model.__dict__[name]
