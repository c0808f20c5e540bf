"""Methods that train weights of the base: BitFit and full fine-tuning.

The base keeps its own weights; while a method is applied its modules hold trained copies.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from csreft_core.base.load import Base
from csreft_core.errors import ConfigError
from csreft_core.methods.changed_base import ChangedBase, MethodSpec, key


class _OwnWeights(ChangedBase):
    def __init__(self, spec: MethodSpec, base: Base, _generator: torch.Generator) -> None:
        super().__init__(spec)
        self._swaps: list[tuple[nn.Module, str, nn.Parameter, nn.Parameter]] = []
        copies: dict[int, nn.Parameter] = {}  # shared weights stay shared
        for name, module in base.model.named_modules():
            for part, parameter in module.named_parameters(recurse=False):
                full = f"{name}.{part}".lstrip(".")
                if not self.takes(base, full, parameter):
                    continue
                if id(parameter) not in copies:
                    copies[id(parameter)] = nn.Parameter(parameter.detach().clone())
                    self.trained[key(full)] = copies[id(parameter)]
                self._swaps.append((module, part, parameter, copies[id(parameter)]))

    def takes(self, base: Base, name: str, parameter: nn.Parameter) -> bool:
        """Whether a weight is trained."""
        raise NotImplementedError

    def change(self, current_pass: Callable[[], Any]) -> Callable[[], None]:  # noqa: ARG002
        """Put the copies into the modules."""
        _put((module, part, copy) for module, part, _, copy in self._swaps)
        return lambda: _put((module, part, own) for module, part, own, _ in self._swaps)


def _put(places: Iterable[tuple[nn.Module, str, nn.Parameter]]) -> None:
    for module, part, parameter in places:
        module._parameters[part] = parameter


class BitFit(_OwnWeights):
    """Trains the base's biases (Ben Zaken et al. 2022, arXiv 2106.10199).

    Raises:
        ConfigError: the base has none.
    """

    def __init__(self, spec: MethodSpec, base: Base, generator: torch.Generator) -> None:
        ids = {id(p) for block in spec.blocks for p in base.blocks[block].parameters()}
        self._ids = None if spec.method.layers is None else ids
        super().__init__(spec, base, generator)
        if not self._swaps:
            raise ConfigError(
                f"BitFit trains the biases of the base, and {base.id!r} "
                f"({type(base.model).__name__}) has none; choose another method, or a base with "
                "biases such as GPT-2"
            )

    def takes(self, base: Base, name: str, parameter: nn.Parameter) -> bool:  # noqa: ARG002
        """Whether it is a bias of a chosen block."""
        is_bias = name.rsplit(".", 1)[-1] == "bias"
        return is_bias and (self._ids is None or id(parameter) in self._ids)


class FullFineTuning(_OwnWeights):
    """Trains every weight of the base.

    Raises:
        ConfigError: a quantised base, whose integers have no gradient.
    """

    def takes(self, base: Base, name: str, parameter: nn.Parameter) -> bool:
        """All are."""
        if not parameter.is_floating_point():
            raise ConfigError(
                f"full fine-tuning needs weights with a gradient, but {name} of {base.id!r} is "
                f"{str(parameter.dtype).removeprefix('torch.')}; set base.precision to fp32 or bf16"
            )
        return True
