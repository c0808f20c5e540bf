"""pyreft's form of a single edit: one small file a layer, read and written without pickled code.

A file is a `torch.save` of a plain dictionary, read with `weights_only=True`. It is what pyreft's
`LoreftIntervention` saves, `weight` [r, d], `bias` [r] and `rotate_layer` [d, r], the transpose of
our R. The other forms have the same three keys here; where pyreft names them differently
(`learned_source`, `proj_layer`), both are read. An untied edit has a second file for its last
tokens. Beside them, `csreft.json` keeps what the files cannot say. Only one subspace fits the form.
"""

import json
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from csreft_core.config import AdapterConfig, Constraint, Form, RouterConfig
from csreft_core.errors import AdapterError, ConfigError, first_line
from csreft_core.files import storage_errors
from csreft_core.reft.adapter import CSReFT
from csreft_core.reft.adapter_spec import AdapterSpec, check_schema
from csreft_core.reft.positions import parse_positions
from csreft_core.reft.pyreft_files import Edits, file_name, read_edits

DESCRIPTION = "csreft.json"
_SPEC = TypeAdapter(AdapterSpec)
# Rows of a trained basis are orthonormal to about 1e-6 in float32; free rows are off by about 1.
_ORTHONORMAL = 1e-3


def export_pyreft(adapter: CSReFT, folder: Path) -> None:
    """Write an adapter with one subspace in pyreft's form.

    Args:
        adapter: One subspace, of form `loreft`, `direft` or `noreft`, and no router that scales it.
        folder: New or empty; it is made.

    Raises:
        AdapterError: more than one subspace, a form or a router that the files cannot hold, or a
            folder that has something in it.
    """
    _check_fits(adapter.spec)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise AdapterError(f"{folder}: expected a new or empty folder; choose another name")
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for layer in adapter.layers:
            subspaces = adapter.at(layer)
            with torch.no_grad():
                R = subspaces.basis()
            assert subspaces.W is not None
            for group in range(subspaces.n_groups):
                tensors = {
                    "weight": subspaces.W[group, 0],
                    "bias": subspaces.b[group, 0],
                    "rotate_layer": R[group, 0].mT,
                }
                plain = {key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}
                torch.save(plain, folder / file_name(layer, group))
        (folder / DESCRIPTION).write_bytes(_SPEC.dump_json(adapter.spec, indent=1))


def _check_fits(spec: AdapterSpec) -> None:
    if len(spec.names) != 1:
        raise AdapterError(
            f"pyreft's form holds one subspace, but this adapter has {len(spec.names)} subspaces; "
            "train with adapter.n_subspaces=1 (preset 'loreft'), or share adapter.safetensors"
        )
    if spec.adapter.form in ("consreft", "lobireft"):
        raise AdapterError(
            f"pyreft's form needs W, but form '{spec.adapter.form}' has no W; "
            "train with adapter.form=loreft, direft or noreft, or share adapter.safetensors"
        )
    if spec.has_router:
        raise AdapterError(
            "pyreft's form has no gates, but this adapter's router scales the edit for each "
            "prompt; train with router.gates=uniform and router.supervision=0, or share "
            "adapter.safetensors"
        )


def import_pyreft(
    folder: Path,
    *,
    n_layers: int | None = None,
    base_fingerprint: str | None = None,
    positions: str | None = None,
    form: Form = "loreft",
) -> CSReFT:
    """Read an adapter in pyreft's form, ours or one that pyreft saved.

    Args:
        folder: Folder with the `intkey_... .bin` files.
        n_layers: Blocks of the base. This and the following are needed, and used, only for a folder
            without our `csreft.json`.
        base_fingerprint: Of the base (`base_record`).
        positions: Edited tokens, such as `f4+l4`; untied where a layer has two files.
        form: `loreft`; `direft`, pyreft's Direft with an orthonormal basis, else its Nodireft; or
            `noreft`.

    Returns:
        The adapter, in evaluation mode, on the CPU, its gate always 1.

    Raises:
        AdapterError: missing or damaged files, shapes that do not agree, rows that are not
            orthonormal where the form asks for it, or a base or positions that are not given.
    """
    edits = read_edits(folder)
    description = folder / DESCRIPTION
    if description.is_file():
        spec = _read_description(description)
    elif n_layers is None or base_fingerprint is None or positions is None:
        raise AdapterError(
            f"{folder}: has no {DESCRIPTION}, so it does not say what it edits; "
            "give n_layers, base_fingerprint and positions"
        )
    else:
        spec = _spec_of(folder, edits, n_layers, base_fingerprint, positions, form)
    _check_fits(spec)
    _check_edits(folder, spec, edits)
    try:
        adapter = CSReFT(spec, torch.Generator().manual_seed(0))
    except ConfigError as error:
        raise AdapterError(f"{folder}: {error}") from None
    _fill(adapter, edits)
    return adapter.eval()


def _read_description(path: Path) -> AdapterSpec:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        check_schema(path, tree)
        spec = _SPEC.validate_json(json.dumps(tree))
    except (ValueError, AttributeError, ValidationError) as error:
        raise AdapterError(
            f"{path}: cannot be read ({first_line(error)}); export again, or delete it and say "
            "what is edited"
        ) from None
    return spec


def _spec_of(
    folder: Path,
    edits: Edits,
    n_layers: int,
    base_fingerprint: str,
    positions: str,
    form: Form,
) -> AdapterSpec:
    """What an adapter without description is, from its files and from what the caller says."""
    rank, d_model = next(iter(edits.values()))["weight"].shape
    try:
        settings = AdapterConfig(
            layers=tuple(sorted({layer for layer, _ in edits})),
            rank=rank,
            n_subspaces=1,
            form=form,
            constraint=_constraint_of(folder, edits, form),
            positions=positions,
            tied=all(group == 0 for _, group in edits),
        )
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise AdapterError(f"{folder}: positions {positions!r}: {reason}") from None
    return AdapterSpec(
        d_model=d_model,
        n_layers=n_layers,
        names=("subspace 1",),
        skills=(),
        base_fingerprint=base_fingerprint,
        adapter=settings,
        router=RouterConfig(gates="uniform"),
    )


def _constraint_of(folder: Path, edits: Edits, form: Form) -> Constraint:
    grams = [edit["rotate_layer"].mT @ edit["rotate_layer"] for edit in edits.values()]
    error = max(float((gram - torch.eye(len(gram))).abs().max()) for gram in grams)
    if form == "loreft" and error > _ORTHONORMAL:
        raise AdapterError(
            f"{folder}: form 'loreft' has an orthonormal rotate_layer, but this one is off by "
            f"{error:.2g}; if it is pyreft's Noreft or Nodireft, give form 'noreft' or 'direft'"
        )
    return "within" if form != "noreft" and error <= _ORTHONORMAL else "none"


def _check_edits(folder: Path, spec: AdapterSpec, edits: Edits) -> None:
    """See that the files are those of the description, before anything of its size is made."""
    groups = parse_positions(spec.adapter.positions, tied=spec.adapter.tied).n_groups
    expected = {(layer, group) for layer in spec.adapter.layers for group in range(groups)}
    if set(edits) != expected:
        missing = sorted(expected.symmetric_difference(edits))[0]
        raise AdapterError(
            f"{folder}: expected {groups} file(s) for each of the layers "
            f"{list(spec.adapter.layers)}, which fails at {file_name(*missing)}; copy the whole "
            "folder again"
        )
    shape = [spec.adapter.rank, spec.d_model]
    for (layer, group), edit in edits.items():
        weight_shape = list(edit["weight"].shape)
        if weight_shape != shape:
            raise AdapterError(
                f"{folder}: {file_name(layer, group)} has weight {weight_shape}, expected "
                f"{shape}; all files must be of one adapter"
            )


@torch.no_grad()
def _fill(adapter: CSReFT, edits: Edits) -> None:
    """Put the tensors in place."""
    for (layer, group), edit in edits.items():
        subspaces = adapter.at(layer)
        assert subspaces.W is not None
        subspaces.W[group, 0] = edit["weight"]
        subspaces.b[group, 0] = edit["bias"]
        subspaces.raw[group, 0] = edit["rotate_layer"].mT
