"""Writes docs/operate/configuration.md from the settings: ``python -m service.configuration``."""

from pathlib import Path
from typing import Any

from service.settings import PREFIX, PROGRAM, Settings

HEAD = f"""# Configuration

Every setting of the service is an environment variable and a flag of `{PROGRAM}`; where both are given, the flag wins.
An unknown `{PREFIX}` variable or a wrong value keeps the service from starting, with one line that names it.
Settings are read once, at the start.

This page is written from `service/settings.py` by `python -m service.configuration`, and a test holds it to that.

| variable | flag | default | takes | meaning |
|---|---|---|---|---|
"""
PAGE = Path(__file__).parents[1] / "docs" / "operate" / "configuration.md"
Schema = dict[str, Any]
KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "`true`, `false`",
    "null": "nothing",
}
FORMATS = {"path": "path", "file-path": "path of a file", "directory-path": "path of a folder", "password": "secret"}
LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "minLength": "at least {} long",
}
UNITS = {2**30: "GiB", 2**20: "MiB", 2**10: "KiB"}


def render() -> str:
    """Render the page."""
    schema = Settings.model_json_schema()
    return HEAD + "".join(row(name, field, schema) for name, field in schema["properties"].items())


def row(name: str, field: Schema, schema: Schema) -> str:
    """Render the row of a setting."""
    cells = [f"`{PREFIX}{name.upper()}`", f"`--{name.replace('_', '-')}`", default(name, field), takes(field, schema)]
    return f"| {' | '.join([*cells, field['description'].replace('|', '/')])} |\n"


def default(name: str, field: Schema) -> str:
    """Format the default of a setting."""
    value = field.get("default")
    if value in (None, "", [], {}):
        return "must be given" if "default" not in field else "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if name.endswith("_bytes"):
        size = next(size for size in (*UNITS, 1) if value % size == 0)
        return f"`{value}`" + (f" ({value // size} {UNITS[size]})" if size in UNITS else "")
    return f"`{value}`"


def takes(field: Schema, schema: Schema) -> str:
    """Describe the allowed values."""
    if "$ref" in field:
        field = schema["$defs"][field["$ref"].rpartition("/")[2]]
    if "anyOf" in field:
        return " or ".join(takes(choice, schema) for choice in field["anyOf"] if choice != {"type": "null"})
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field["type"] == "array":
        return f"JSON list of {takes(field['items'], schema)}"
    if field["type"] == "object":
        return "JSON object"
    words = [FORMATS.get(field.get("format", ""), KINDS[field["type"]])]
    return ", ".join(words + [text.format(field[limit]) for limit, text in LIMITS.items() if limit in field])


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
