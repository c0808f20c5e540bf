"""What an adapter is, without its numbers: read from its file in a moment, without torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open

from csreft_core.config import SCHEMA_VERSION, AdapterConfig, RouterConfig
from csreft_core.errors import AdapterError, first_line
from csreft_core.reft.position_rules import EditedTokens, edited_tokens

METHOD_METADATA = "csreft_method"
"""Where a file of another method than CS-ReFT has its description, as JSON."""
_METADATA = "csreft"


@dataclass(frozen=True, kw_only=True)
class AdapterSpec:
    """What an adapter is, without its numbers.

    `names` are the subspaces' names: the skills, where there is one for each.
    `base_fingerprint` says which base it was trained on (see `base_record`).
    """

    d_model: int
    n_layers: int
    names: tuple[str, ...]
    skills: tuple[str, ...]
    base_fingerprint: str
    adapter: AdapterConfig
    router: RouterConfig
    schema_version: int = SCHEMA_VERSION

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    @property
    def has_router(self) -> bool:
        """A router exists when it decides the gates or is taught to."""
        return self.router.gates == "learned" or self.router.supervision > 0

    @property
    def positions(self) -> EditedTokens:
        """Which tokens are edited."""
        return edited_tokens(self.adapter.positions, tied=self.adapter.tied)


_SPEC = TypeAdapter(AdapterSpec)


def read_spec(path: Path) -> AdapterSpec:
    """The description in an adapter file; its numbers are not looked at.

    Raises:
        AdapterError: no such file, damaged, not an adapter, or of a newer schema.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return spec_of_metadata(path, file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> AdapterError:
    """What to say of a file that safetensors cannot read."""
    return AdapterError(
        f"{path}: is damaged or not a safetensors file ({error}); copy it again or train again"
    )


def as_metadata(spec: AdapterSpec) -> dict[str, str]:
    """The description as it stands in the file."""
    return {_METADATA: _SPEC.dump_json(spec).decode()}


def spec_of_metadata(path: Path, metadata: dict[str, str]) -> AdapterSpec:
    """The description in the metadata of a file; raises as `read_spec`."""
    if METHOD_METADATA in metadata:
        method = json.loads(metadata[METHOD_METADATA]).get("method", {}).get("name", "another")
        raise AdapterError(
            f"{path}: holds the method {method!r}, which has no subspaces to look at; the page "
            "Methods and the command compare show what it does"
        )
    if _METADATA not in metadata:
        raise AdapterError(
            f"{path}: is a safetensors file but not a CS-ReFT adapter; give a run's "
            "adapter.safetensors"
        )
    try:
        check_schema(path, json.loads(metadata[_METADATA]))
        spec = _SPEC.validate_json(metadata[_METADATA])
        if not spec.names or spec.d_model < 1:
            raise ValueError("it has no subspaces or no width")
    except (ValueError, AttributeError, ValidationError) as error:
        raise AdapterError(
            f"{path}: its description cannot be read ({first_line(error)}); copy it again or train "
            "again"
        ) from None
    return spec


def check_schema(path: Path, description: dict[str, Any]) -> None:
    """See that this program knows the schema of a description.

    Raises:
        AdapterError: it is newer.
    """
    version = description.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise AdapterError(
            f"{path}: schema_version is {version}, this program knows up to {SCHEMA_VERSION}; "
            "update the program"
        )
