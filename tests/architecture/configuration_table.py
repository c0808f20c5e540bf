"""The tables of docs/configuration.md, from the configuration itself.

`python -m tests.architecture.configuration_table` writes them into the page.
"""

import json

from pydantic import TypeAdapter

from csreft_core.config import PRESET_NOTES, PRESETS, Config, config_to_dict
from tests.repository import ROOT

ROW_START = "| `"
GROUPS = ("base", "data", "method", "adapter", "router", "train")
_BOUNDS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
}
_TYPES = {"string": "text", "integer": "whole number", "number": "number"}


def _code(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text}`".replace("\n", "\\n").replace("|", "\\|")


def _values(schema: dict) -> str:
    if "anyOf" in schema:
        return " or ".join(_values(part) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(_code(value) for value in schema["enum"])
    if "const" in schema:
        return _code(schema["const"])
    kind = schema.get("type")
    if kind == "null":
        return "empty"
    if kind == "boolean":
        return "`true`, `false`"
    if kind == "array":
        return f"list of {_TYPES[schema['items']['type']]}s"
    bounds = [f"{sign} {schema[key]:g}" for key, sign in _BOUNDS.items() if key in schema]
    return " ".join([_TYPES[kind], ", ".join(bounds)]).strip()


def setting_rows() -> list[str]:
    """One row for each path: path, default, values, meaning."""
    definitions = TypeAdapter(Config).json_schema()["$defs"]
    defaults = config_to_dict(Config())
    return [
        f"| `{group}.{name}` | {_code(defaults[group][name])} | {_values(schema)} "
        f"| {schema['description']} |"
        for group in GROUPS
        for name, schema in definitions[f"{group.title()}Config"]["properties"].items()
    ]


def preset_rows() -> list[str]:
    """One row for each preset: name, what differs from the defaults, what it is."""
    defaults = config_to_dict(Config())
    rows = []
    for name, config in PRESETS.items():
        tree = config_to_dict(config)
        changes = [
            _code(f"{group}.{field}={json.dumps(value).strip(chr(34))}")
            for group in GROUPS
            for field, value in tree[group].items()
            if value != defaults[group][field]
        ]
        rows.append(f"| `{name}` | {', '.join(changes) or 'nothing'} | {PRESET_NOTES[name]} |")
    return rows


def write_page() -> None:
    """Put the rows under the heads of the page's two tables; the other text stays."""
    page = ROOT / "docs/configuration.md"
    tables = iter((setting_rows(), preset_rows()))
    lines: list[str] = []
    for line in page.read_text(encoding="utf-8").splitlines():
        if not line.startswith(ROW_START):
            lines.append(line)
        if line.startswith("|--"):
            lines += next(tables)
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_page()
