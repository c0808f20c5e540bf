"""The decoder blocks of a model, found from its module tree. No table of model families."""

from torch import nn
from transformers import PreTrainedModel

from csreft_core.errors import UnsupportedModelError


def find_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The list of decoder blocks, found from the module tree.

    It is the only `ModuleList` with one module for each layer that the model's configuration
    counts and that does not lie inside another such list.

    Raises:
        UnsupportedModelError: none or several.
    """
    n = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    found: dict[str, nn.ModuleList] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, nn.ModuleList) and len(module) == n and not inside:
            found[name] = module
    if len(found) != 1:
        listed = ", ".join(found) if found else "none"
        raise UnsupportedModelError(
            f"{type(model).__name__}: expected one list of {n} decoder blocks, found {listed}; "
            "only models whose blocks form one list can be edited"
        )
    return next(iter(found.values()))
