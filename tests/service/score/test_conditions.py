"""Conditions on rows."""

import pyarrow as pa
import pytest

from service.errors import InputError
from service.score.conditions import check_columns, read_condition, select

BATCH = pa.record_batch(
    {
        "split": ["train", "test", None, "test"],
        "width": pa.array([32, 64, 100, None]),
        "label": pa.array(["a", "b", "a", "b"]).dictionary_encode(),
        "age": ["9", "10", "unknown", ""],
    }
)


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("split=test", [1, 3]),
        ("split != test", [0]),
        ("width>=64", [1, 2]),
        ("width<64", [0]),
        ("label=a", [0, 2]),
        ("split~te*", [1, 3]),
        ("age>9", [1]),
        ("split>test", [0]),
    ],
)
def test_a_condition_holds_for_some_rows_and_never_for_an_empty_cell(condition: str, found: list[int]) -> None:
    assert select([read_condition(condition)], BATCH).tolist() == found


def test_all_of_several_conditions_must_hold() -> None:
    assert select([read_condition("split=test"), read_condition("width=64")], BATCH).tolist() == [1]


@pytest.mark.parametrize("text", ["", "split", "=test", "~*"])
def test_a_condition_of_another_form_is_an_error_that_shows_one(text: str) -> None:
    with pytest.raises(InputError, match="split=test"):
        read_condition(text)


def test_a_value_of_another_type_than_its_column_is_an_error() -> None:
    with pytest.raises(InputError, match="the column holds int64, not 'wide'"):
        select([read_condition("width=wide")], BATCH)


def test_a_column_that_is_missing_is_an_error_that_lists_the_others() -> None:
    with pytest.raises(InputError, match="no column 'spilt'; it has: split, width"):
        check_columns([read_condition("spilt=test")], ["split", "width"], "table.csv")
