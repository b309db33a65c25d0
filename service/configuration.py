"""docs/operate/configuration.md, written from the settings: ``python -m service.configuration``."""

from pathlib import Path
from typing import Any

from service.settings import PREFIX, PROGRAM, Settings

HEAD = f"""# Configuration

Every setting of the service is an environment variable and a flag of `{PROGRAM}`. If both are given, the flag
wins. Settings are read once, at the start. An unknown `{PREFIX}` variable or a wrong value keeps the service from
starting, and one line names it.

`python -m service.configuration` writes this page from `service/settings.py`.
"""
GROUPS = {
    "host": "Address and connections",
    "models": "Models",
    "device": "Inference and decoding",
    "max_queue": "Limits",
    "timeout_ms": "Time-outs",
    "api_keys": "Access",
    "ui": "Page, streams and response cache",
    "rollout": "Rollouts and captured pictures",
    "drift_window": "Drift, logs and traces",
}
"""Headings of the page, by the first setting below each."""
TABLE = """
## {}

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
    "minLength": "at least {} character",
}
UNITS = {2**30: "GiB", 2**20: "MiB", 2**10: "KiB"}


def render() -> str:
    """The page."""
    schema = Settings.model_json_schema()
    rows = {name: row(name, field, schema) for name, field in schema["properties"].items()}
    return HEAD + "".join((TABLE.format(GROUPS[name]) if name in GROUPS else "") + rows[name] for name in rows)


def row(name: str, field: Schema, whole: Schema) -> str:
    """A setting's line of the table."""
    cells = [f"`{PREFIX}{name.upper()}`", f"`--{name.replace('_', '-')}`", default(name, field), takes(field, whole)]
    return f"| {' | '.join([*cells, field['description'].replace('|', '/')])} |\n"


def default(name: str, field: Schema) -> str:
    """What holds when nothing is said."""
    value = field.get("default")
    if value in (None, "", [], {}):
        return "must be given" if "default" not in field else "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if name.endswith("_bytes") and value:
        size = next(size for size in (*UNITS, 1) if value % size == 0)
        return f"`{value}`" + (f" ({value // size} {UNITS[size]})" if size in UNITS else "")
    return f"`{value}`"


def takes(field: Schema, whole: Schema) -> str:
    """The values that are allowed, in words."""
    if "$ref" in field:
        field = whole["$defs"][field["$ref"].rpartition("/")[2]]
    if "anyOf" in field:
        return " or ".join(takes(choice, whole) for choice in field["anyOf"] if choice != {"type": "null"})
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field["type"] == "array":
        return f"JSON list of {takes(field['items'], whole)}"
    if field["type"] == "object":
        return "JSON object"
    words = [FORMATS.get(field.get("format", ""), KINDS[field["type"]])]
    return ", ".join(words + [text.format(field[limit]) for limit, text in LIMITS.items() if limit in field])


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
