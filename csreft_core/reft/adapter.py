"""CSReFT, the adapter: subspaces for each edited layer and one router; save and load.

An adapter file is self-contained: safetensors with the raw parameters, and its `AdapterSpec` as
JSON in the metadata. A pickle is never read.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from csreft_core.config import Config
from csreft_core.errors import AdapterError, ConfigError
from csreft_core.files import replacing
from csreft_core.reft.adapter_spec import AdapterSpec, as_metadata, damaged, spec_of_metadata
from csreft_core.reft.positions import parse_positions
from csreft_core.reft.router import Router, router_of
from csreft_core.reft.subspaces import Subspaces
from csreft_core.reft.tuning import Tuning


class CSReFT(Tuning):
    """The trainable part: `subspaces[str(layer)]` for each edited layer and a shared `router`.

    It never touches a model; `attach` applies it. Parameters are float32.

    Raises:
        ConfigError: a layer that the base does not have, or subspaces that do not fit its width.
    """

    def __init__(self, spec: AdapterSpec, generator: torch.Generator) -> None:
        super().__init__()
        self.spec = spec
        a, r = spec.adapter, spec.router
        self.penalty_weight = a.penalty if a.constraint == "penalty" else 0.0
        _check_layers(spec)
        self.layers = a.layers
        self.names = spec.names
        self.n_subspaces = len(spec.names)
        self.positions = parse_positions(a.positions, tied=a.tied)
        self.subspaces = nn.ModuleDict(
            {
                str(layer): Subspaces(
                    d_model=spec.d_model,
                    n_subspaces=self.n_subspaces,
                    rank=a.rank,
                    n_groups=self.positions.n_groups,
                    form=a.form,
                    constraint=a.constraint,
                    init=a.init,
                    dropout=a.dropout,
                    generator=generator,
                )
                for layer in a.layers
            }
        )
        self.router: Router | None = None
        if spec.has_router:
            self.router = router_of(
                r, d_model=spec.d_model, n_subspaces=self.n_subspaces, generator=generator
            )

    def at(self, layer: int) -> Subspaces:
        """The subspaces of one edited layer."""
        subspaces = self.subspaces[str(layer)]
        assert isinstance(subspaces, Subspaces)
        return subspaces

    def set_dropout_seed(self, seed: int) -> None:
        """Choose which coordinates dropout takes in the next step; different in each layer."""
        for layer in self.layers:
            self.at(layer).dropout_seed = (seed * 4096 + layer) * 2

    def overlap_penalty(self) -> torch.Tensor:
        """Sum of the layers' overlap penalties (see `Subspaces.overlap_penalty`)."""
        return torch.stack([self.at(layer).overlap_penalty() for layer in self.layers]).sum()

    def counts(self) -> dict[str, int]:
        """See `parameter_counts`."""
        return parameter_counts(self)

    def figures(self) -> dict[str, float]:
        """How well the constraint holds, the worst layer's; the mean overlap of the layers."""
        subspaces = [self.at(layer) for layer in self.layers]
        return {
            "orthonormality_error": max(s.orthonormality_error() for s in subspaces),
            "constraint_error": max(s.constraint_error() for s in subspaces),
            "overlap": sum(s.overlap() for s in subspaces) / len(subspaces),
        }

    def save(self, path: Path) -> None:
        """See `save_adapter`."""
        save_adapter(self, path)


def _check_layers(spec: AdapterSpec) -> None:
    beyond = [layer for layer in spec.adapter.layers if not 0 <= layer < spec.n_layers]
    if beyond:
        raise ConfigError(
            f"adapter.layers has {beyond[0]}, but the base has layers 0 to {spec.n_layers - 1}"
        )
    if spec.has_router and spec.router.layer > min(spec.adapter.layers):
        raise ConfigError(
            f"router.layer is {spec.router.layer}, above the first edited layer "
            f"{min(spec.adapter.layers)}: the gates would depend on the edits that they control; "
            f"choose -1 (embedding) to {min(spec.adapter.layers)}"
        )


def build_adapter(
    config: Config, *, d_model: int, n_layers: int, skills: tuple[str, ...], base_fingerprint: str
) -> CSReFT:
    """A fresh adapter for a base and a skill set, its start decided by `train.seed`.

    Raises:
        ConfigError: layers or ranks that do not fit the base, or labels asked for where the
            subspaces are not one for each skill.
    """
    k = config.adapter.n_subspaces or len(skills)
    if k == 0:
        raise ConfigError(
            "the skill set has no skill names; set adapter.n_subspaces, or label the rows"
        )
    needs_labels = config.router.gates == "oracle" or config.router.supervision > 0
    if needs_labels and k != len(skills):
        raise ConfigError(
            f"router.gates=oracle and router.supervision need one subspace for each skill, but "
            f"adapter.n_subspaces is {k} and the data has {len(skills)} skills"
        )
    names = skills if k == len(skills) else tuple(f"subspace {i + 1}" for i in range(k))
    spec = AdapterSpec(
        d_model=d_model,
        n_layers=n_layers,
        names=names,
        skills=skills,
        base_fingerprint=base_fingerprint,
        adapter=config.adapter,
        router=config.router,
    )
    return CSReFT(spec, torch.Generator().manual_seed(config.train.seed))


def parameter_counts(adapter: CSReFT) -> dict[str, int]:
    """Trainable parameters in three parts: `subspaces`, `router`, `total`."""

    def count(module: nn.Module | None) -> int:
        parameters = [] if module is None else module.parameters()
        return sum(p.numel() for p in parameters if p.requires_grad)

    subspaces, router = count(adapter.subspaces), count(adapter.router)
    return {"subspaces": subspaces, "router": router, "total": subspaces + router}


def save_adapter(adapter: CSReFT, path: Path) -> None:
    """Write the adapter to one safetensors file, atomically.

    Raises:
        StorageError: the disk refuses; an older file stays.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in adapter.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=as_metadata(adapter.spec))


def read_adapter_file(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Metadata and tensors of a safetensors file.

    Raises:
        AdapterError: no such file, or damaged.
    """
    if not path.is_file():
        raise AdapterError(f"{path}: no such adapter file; train the run to its end, or again")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return metadata, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from None


def load_adapter(path: Path) -> CSReFT:
    """Read an adapter file; the adapter is in evaluation mode, on the CPU.

    Raises:
        AdapterError: no such file, damaged, not an adapter, or of a newer schema.
    """
    metadata, tensors = read_adapter_file(path)
    spec = spec_of_metadata(path, metadata)
    check_claims(path, least_numbers(spec), tensors)
    try:
        adapter = CSReFT(spec, torch.Generator().manual_seed(0))
    except ConfigError as error:
        raise AdapterError(f"{path}: its description does not fit itself ({error})") from None
    expected = {name: (t.shape, t.dtype) for name, t in adapter.state_dict().items()}
    if expected != {name: (t.shape, t.dtype) for name, t in tensors.items()}:
        raise AdapterError(
            f"{path}: its tensors do not have the names, shapes and types that its description "
            "asks for; the file was changed, train again"
        )
    if not all(torch.isfinite(t).all() for t in tensors.values()):
        raise AdapterError(f"{path}: holds values that are not finite; train again, lower train.lr")
    adapter.load_state_dict(tensors)
    return adapter.eval()


def check_claims(path: Path, least: int, tensors: Mapping[str, torch.Tensor]) -> None:
    """See that a description asks for no more numbers than its file holds, before they are made.

    Raises:
        AdapterError: it does.
    """
    n_held = sum(tensor.numel() for tensor in tensors.values())
    if least > n_held:
        raise AdapterError(
            f"{path}: its description asks for {least} numbers or more, but it holds {n_held}; the "
            "file was changed, train again"
        )


def least_numbers(spec: AdapterSpec) -> int:
    """Numbers of R and of the router's first layer, of which all adapters have one."""
    a, width = spec.adapter, spec.router.hidden
    width = spec.d_model // 2 if width == "paper" else width
    edits = len(a.layers) * len(spec.names) * a.rank
    return spec.d_model * (edits + (width if spec.has_router else 0))
