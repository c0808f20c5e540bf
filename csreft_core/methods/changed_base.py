"""What the methods that change the base itself have in common: description, parameters, file."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from csreft_core.base.load import Base
from csreft_core.config import SCHEMA_VERSION, MethodConfig, RouterConfig
from csreft_core.errors import AdapterError, ConfigError, first_line
from csreft_core.files import replacing
from csreft_core.reft.adapter import read_adapter_file
from csreft_core.reft.adapter_spec import METHOD_METADATA, check_schema
from csreft_core.reft.positions import parse_positions
from csreft_core.reft.tuning import Tuning


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """What a trained method is, without its numbers; see `adapter.AdapterSpec`."""

    d_model: int
    n_layers: int
    skills: tuple[str, ...]
    base_fingerprint: str
    method: MethodConfig
    router: RouterConfig
    seed: int = 0
    schema_version: int = SCHEMA_VERSION

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks that are changed."""
        layers = self.method.layers
        return tuple(range(self.n_layers)) if layers is None else layers


_SPEC = TypeAdapter(MethodSpec)


class ChangedBase(Tuning):
    """A method that changes the base itself, at all tokens, and has no gates.

    A subclass puts its parameters into `trained`, under any names without dots, and
    changes the base in `change`, which returns what takes the change back.
    """

    spec: MethodSpec

    def __init__(self, spec: MethodSpec) -> None:
        super().__init__()
        self.spec = spec
        self.names, self.n_subspaces, self.layers = (), 0, ()
        self.positions = parse_positions("all")
        self.router = None
        self.penalty_weight = 0.0
        self.trained = nn.ParameterDict()
        beyond = [layer for layer in spec.blocks if layer >= spec.n_layers]
        if beyond:
            raise ConfigError(
                f"method.layers has {beyond[0]}, but the base has layers 0 to {spec.n_layers - 1}"
            )

    def change(self, current_pass: Callable[[], Any]) -> Callable[[], None]:
        """Change the base; returns what takes the change back."""
        raise NotImplementedError

    def applied(self, current_pass: Callable[[], Any]) -> AbstractContextManager[None]:
        """See `Tuning.applied`."""
        return _undo_after(self.change(current_pass))

    def save(self, path: Path) -> None:
        """Write the parameters, with the description as JSON in the metadata."""
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.state_dict().items()}
        metadata = {METHOD_METADATA: _SPEC.dump_json(self.spec).decode()}
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)


@contextmanager
def _undo_after(undo: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    finally:
        undo()


def remover(handles: list[RemovableHandle]) -> Callable[[], None]:
    """A function that takes hooks away."""

    def undo() -> None:
        for handle in handles:
            handle.remove()

    return undo


def linear_layers(base: Base, blocks: tuple[int, ...]) -> dict[str, nn.Module]:
    """The linear layers of these blocks by their full name, found from the module tree.

    GPT-2 has its own class of linear layer, with the weight transposed.
    """
    names = {id(module): name for name, module in base.model.named_modules()}
    return {
        names[id(module)]: module
        for block in blocks
        for module in base.blocks[block].modules()
        if isinstance(module, nn.Linear | Conv1D)
    }


def in_and_out(linear: nn.Module) -> tuple[int, int]:
    """Input and output width of a linear layer."""
    if isinstance(linear, Conv1D):
        return linear.nx, linear.nf
    assert isinstance(linear, nn.Linear)
    return linear.in_features, linear.out_features


def key(name: str) -> str:
    """The full name of a module as a key, which must not have dots."""
    return name.replace(".", "/")


def read_method_file(path: Path) -> tuple[MethodSpec, dict[str, Tensor]] | None:
    """Description and parameters; None if the file is of another kind, such as CS-ReFT's.

    Raises:
        AdapterError: no such file, damaged, or of a newer schema.
    """
    metadata, tensors = read_adapter_file(path)
    if METHOD_METADATA not in metadata:
        return None
    try:
        check_schema(path, json.loads(metadata[METHOD_METADATA]))
        return _SPEC.validate_json(metadata[METHOD_METADATA]), tensors
    except (ValueError, AttributeError, ValidationError) as error:
        raise AdapterError(
            f"{path}: its description cannot be read ({first_line(error)}); copy it "
            "again or train again"
        ) from None
