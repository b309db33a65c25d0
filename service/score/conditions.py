"""Conditions on the columns of an input: ``--where split=test``."""

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from service.errors import InputError

PATTERN = "~"
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "!=": pc.not_equal,
    "<=": pc.less_equal,
    ">=": pc.greater_equal,
    "=": pc.equal,
    "<": pc.less,
    ">": pc.greater,
}
ORDERS = {"<=", ">=", "<", ">"}
FORM = re.compile(r"\s*(?P<column>[^<>=!~]+?)\s*(?P<operator>!=|<=|>=|=|<|>|~)\s*(?P<value>.*?)\s*", re.DOTALL)


class Condition(NamedTuple):
    """A column, an operator and a value: only rows for which it holds are scored."""

    column: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.column}{self.operator}{self.value}"


def read_condition(text: str) -> Condition:
    """Parse ``COLUMN OPERATOR VALUE``.

    Raises:
        InputError: it has another form.
    """
    found = FORM.fullmatch(text)
    if found is None:
        operators = ", ".join([*COMPARISONS, PATTERN])
        raise InputError(f"--where {text!r} is no condition; write COLUMN, one of {operators}, and a value: split=test")
    return Condition(**found.groupdict())


def check_columns(conditions: Sequence[Condition], columns: Sequence[str], where: str) -> None:
    """Raise `InputError` if a condition names a column that ``where`` does not have."""
    for condition in conditions:
        if condition.column not in columns:
            raise InputError(
                f"--where {condition}: {where} has no column {condition.column!r}; it has: {', '.join(columns)}"
            )


def select(conditions: Sequence[Condition], batch: pa.RecordBatch) -> NDArray[np.intp]:
    """Return the positions of the rows of ``batch`` that meet all ``conditions``. An empty cell meets none.

    Raises:
        InputError: a value does not have the type of its column.
    """
    masks = [mask(condition, batch.column(condition.column)) for condition in conditions]
    return np.flatnonzero(reduce(np.logical_and, masks, np.ones(len(batch), np.bool_)))


def mask(condition: Condition, cells: pa.Array) -> NDArray[np.bool_]:
    """Return for each cell whether the condition holds. Text is compared as numbers where both are some."""
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    if condition.operator == PATTERN:
        found = [cell is not None and fnmatchcase(str(cell), condition.value) for cell in cells.to_pylist()]
        return np.array(found, np.bool_)
    if pa.types.is_string(cells.type) and condition.operator in ORDERS and number(condition.value) is not None:
        cells = pa.array([number(cell) for cell in cells.to_pylist()], pa.float64())
    try:
        value = pa.scalar(condition.value).cast(cells.type)
        met = COMPARISONS[condition.operator](cells, value)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowKeyError) as error:
        raise InputError(f"--where {condition}: the column holds {cells.type}, not {condition.value!r}") from error
    answer: NDArray[np.bool_] = pc.fill_null(met, False).to_numpy(zero_copy_only=False)
    return answer


def number(text: str | None) -> float | None:
    """Return the number that ``text`` is, or None."""
    try:
        return float(text or "")
    except ValueError:
        return None
