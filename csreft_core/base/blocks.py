"""The decoder blocks of a model, found from its module tree, and the form of what they give.

No table of model families.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from csreft_core.errors import UnsupportedModelError

_SEQUENCES = (tuple, list)  # in one with names, the states need not come first


def find_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The list of decoder blocks, found from the module tree.

    It is the only `ModuleList` with one module for each layer that the model's configuration
    counts and that does not lie inside another such list. Where an encoder of images or sound has
    as many, it is the one inside what transformers calls the decoder.

    Raises:
        UnsupportedModelError: none or several.
    """
    n = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = _lists(model, n)
    if len(lists) > 1:
        decoder = model.get_decoder()
        lists = _lists(decoder, n) if isinstance(decoder, nn.Module) else lists
    if len(lists) != 1:
        names = ", ".join(lists) if lists else "none"
        raise UnsupportedModelError(
            f"{type(model).__name__}: expected one list of {n} decoder blocks, found {names}; "
            "only models whose blocks form one list can be edited"
        )
    return next(iter(lists.values()))


def _lists(model: nn.Module, n: int | None) -> dict[str, nn.ModuleList]:
    lists: dict[str, nn.ModuleList] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in lists)
        if isinstance(module, nn.ModuleList) and len(module) == n and not inside:
            lists[name] = module
    return lists


def states_of(output: Any) -> Any:
    """The hidden states that a block gives: its output, or the first part of it."""
    return output[0] if type(output) in _SEQUENCES else output


def with_states(output: Any, states: Tensor) -> Any:
    """A block's output with other hidden states, in the same form."""
    if type(output) in _SEQUENCES:
        return type(output)([states, *output[1:]])
    return states


@dataclass(frozen=True)
class Form:
    """What a block gives: hidden states alone, or a tuple or list that begins with them.

    Attributes:
        kind: `tuple` or `list`; None for the states alone.
        n: How many parts.
    """

    kind: type | None
    n: int = 1

    @classmethod
    def of(cls, output: Any) -> "Form":
        """The form of an output."""
        return cls(type(output), len(output)) if type(output) in _SEQUENCES else cls(None)

    def holding(self, states: Tensor) -> Any:
        """An output of this form with these states, and None for all else."""
        if self.kind is None:
            return states
        return self.kind([states, *[None] * (self.n - 1)])
