"""The page of all settings is the one that the settings write."""

from typing import Any

import pytest
from pydantic import BaseModel, Field, create_model

from service.configuration import GROUPS, PAGE, default, render, row, takes
from service.settings import Settings


def test_the_page_is_what_the_settings_write() -> None:
    assert PAGE.read_text() == render(), "write it again: python -m service.configuration"


def test_every_heading_stands_above_a_setting() -> None:
    assert next(iter(GROUPS)) == next(iter(Settings.model_fields))
    assert PAGE.read_text().count("\n## ") == len(GROUPS)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_a_line_with_both_its_names_and_its_description(name: str) -> None:
    (line,) = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| `STN_{name.upper()}` |")]
    assert f"| `--{name.replace('_', '-')}` |" in line
    description = Settings.model_fields[name].description
    assert description is not None
    assert description.split(";")[0].replace("|", "/") in line


@pytest.mark.parametrize(
    ("kind", "field", "said", "allowed"),
    [
        (int, Field(5, ge=1, le=9), "`5`", "whole number, at least 1, at most 9"),
        (bool, Field(False), "`false`", "`true`, `false`"),
        (float | None, Field(None, gt=0), "none", "number, more than 0"),
        (list[str], Field([]), "none", "JSON list of text"),
        (str, Field(...), "must be given", "text"),
    ],
)
def test_defaults_and_limits_are_said_in_words(kind: Any, field: Any, said: str, allowed: str) -> None:
    model: type[BaseModel] = create_model("Model", size=(kind, field))
    schema = model.model_json_schema()
    assert default("size", schema["properties"]["size"]) == said
    assert takes(schema["properties"]["size"], schema) == allowed


def test_sizes_are_said_in_units_too() -> None:
    assert "| `10485760` (10 MiB) |" in row(
        "max_bytes", {"default": 10 * 2**20, "type": "integer", "description": "a|b"}, {}
    )
    assert default("max_bytes", {"default": 1000}) == "`1000`"
    assert default("max_bytes", {"default": 0}) == "`0`"
