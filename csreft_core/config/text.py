"""Settings as text: a config to and from JSON, single values as one types them, and differences.

A value of the wrong type, an unknown name or a number out of range is a `ConfigError` that names
the path. No I/O besides reading a JSON file.
"""

import json
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from csreft_core.config import templates
from csreft_core.config.tree import SCHEMA_VERSION, Config
from csreft_core.errors import ConfigError

GROUPS: dict[str, type] = {
    field.name: type(value)
    for field in fields(Config)
    if is_dataclass(value := getattr(Config(), field.name))
}
"""The groups of settings that a user decides, by name: `base`, `data`, `method`, ..."""

_TREE = TypeAdapter(Config)


def config_to_dict(config: Config) -> dict[str, Any]:
    """The tree as plain JSON values."""
    return _TREE.dump_python(config, mode="json")


def config_from_dict(tree: dict[str, Any], source: str = "config") -> Config:
    """Build a config; keys that are left out take their defaults.

    Args:
        tree: Nested dictionary of JSON values.
        source: Name of the origin, for the message.

    Raises:
        ConfigError: unknown key, wrong type or value out of range, newer schema.
    """
    version = tree.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ConfigError(
            f"{source}: schema_version is {version}, this program knows up to {SCHEMA_VERSION}; "
            "update the program"
        )
    try:
        return _TREE.validate_json(json.dumps(tree))
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_problem(error)}") from None


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    path = ".".join(str(part) for part in problem["loc"] if "[" not in str(part))
    message = problem["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown setting {path!r}; docs/configuration.md lists the settings"
    value = json.dumps(problem["input"], default=str)
    return f"{path}: {message}, got {value[:80]}"


def read_config(path: Path) -> Config:
    """Read a config file.

    Raises:
        ConfigError: no such file, not UTF-8, not JSON, or not a valid config.
    """
    try:
        # Notepad begins a UTF-8 file with a mark, which utf-8-sig takes away.
        tree = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file; give a path or --preset") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; give the config file inside it") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not JSON ({error}); see --preset for an example") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a JSON object, got {type(tree).__name__}")
    return config_from_dict(tree, source=str(path))


def with_overrides(config: Config, assignments: Iterable[str]) -> Config:
    """Set single values by their path, such as `train.steps=200` or `adapter.layers=[2,4]`.

    The value is read by `read_value`.

    Raises:
        ConfigError: no `=`, unknown path, or a value that does not fit.
    """
    tree = config_to_dict(config)
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        *groups, name = path.strip().split(".")
        if not separator or len(groups) != 1:
            raise ConfigError(
                f"expected group.field=value such as train.steps=200, got {assignment!r}"
            )
        group = tree.get(groups[0])
        if groups[0] == "provenance" or not isinstance(group, dict) or name not in group:
            raise ConfigError(
                f"unknown setting {path.strip()!r}; docs/configuration.md lists the settings"
            )
        group[name] = read_value(path.strip(), text)
    return config_from_dict(tree, source="settings")


def read_value(path: str, text: str) -> Any:
    r"""A value as one types it: JSON where it is JSON, else text.

    In `data.template`, typed as text, `\n` and `\t` are line end and tab. JSON that stands for half
    a character, which no file and no page can hold, is a text too.
    """
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError):  # UnicodeEncodeError is a ValueError
        return templates.unescape(text) if path == "data.template" else text


def value_text(path: str, value: Any) -> str:
    """As short as `read_value` can read it back: a text without quotes, unless it needs them."""
    if isinstance(value, str) and value.isprintable() and read_value(path, value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def assignments(before: Config, after: Config) -> list[str]:
    """What leads from one config to another, as `group.field=value` for `with_overrides`.

    Schema and provenance, which no user decides, are left out.
    """
    start, tree = config_to_dict(before), config_to_dict(after)
    return [
        f"{group}.{name}={value_text(f'{group}.{name}', value)}"
        for group in GROUPS
        for name, value in tree[group].items()
        if value != start[group][name]
    ]
