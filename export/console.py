"""Shared parts of this package's command lines: exit codes, error messages, tables. Imports no torch.

Exit codes: 0 success, 1 failure, 2 wrong command, 3 the result was rejected after measuring it.
"""

import re
import sys
from collections.abc import Callable

import typer
from rich.table import Table

from export.format.errors import ArtifactError, VerdictError
from export.format.manifest import Manifest, Price
from training.errors import TrainingError
from training.terminal import escape_unprintable

FAILED, REJECTED = 1, 3
LARGEST_SIDE = 4096


def run_command(command: Callable[..., None], program: str) -> None:
    """Run ``command`` with the arguments of this process. Errors that the user can resolve are printed as one line."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name=program)(command)
    escape_unprintable()
    try:
        app(prog_name=program)
    except (ArtifactError, TrainingError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(REJECTED if isinstance(error, VerdictError) else FAILED)


def read_size(text: str) -> tuple[int, int]:
    """Convert ``HxW`` to height and width.

    Raises:
        typer.BadParameter: it is written in another way.
    """
    found = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text.strip().lower())
    sides = (int(found[1]), int(found[2])) if found else (0, 0)
    if not found or max(sides) > LARGEST_SIDE:
        raise typer.BadParameter(f"{text!r} is not HEIGHTxWIDTH, as in 28x28, with sides up to {LARGEST_SIDE}")
    return sides


def read_numbers(text: str) -> tuple[float, ...]:
    """Convert numbers between commas.

    Raises:
        typer.BadParameter: one is not a number.
    """
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number for each channel, as in 0.485,0.456,0.406") from None


def measures(manifest: Manifest) -> Table:
    """Return the measures of a model as a table."""
    table = Table("measured", "value")
    opset = f", opset {manifest.opset}" if manifest.opset else ""
    table.add_row("format", f"{manifest.runtime}{opset}, {manifest.precision}")
    found = manifest.accuracy
    accuracy = "not measured"
    if found is not None:
        accuracy = f"{found.accuracy:.2%} of {found.pictures:,} pictures: {found.dataset}"
    table.add_row("accuracy", accuracy)
    if (worth := manifest.worth) is not None:
        note = "; the transformer is decoration" if worth.decoration else ""
        table.add_row(
            "accuracy without theta",
            f"{worth.mean_theta:.2%} with its mean, {worth.identity:.2%} with the identity{note}",
        )
    parity = manifest.parity
    table.add_row("probabilities differ from the trained model by", f"{parity.probabilities:.1e} at most")
    table.add_row("theta and parameters", f"{parity.parameters:.1e} at most")
    table.add_row(
        "rectified images",
        f"by {parity.rectified} grey levels at most; {parity.within_one_level:.2%} of the pixels within 1",
    )
    if parity.rounding_probabilities is not None:
        table.add_row(
            "the trained model, by float32's rounding alone",
            f"{parity.rounding_probabilities:.1e}, {parity.rounding_parameters:.1e}",
        )
    return table


def price_table(price: Price, accuracy: float, size: int) -> Table:
    """Return the cost of a lower precision, compared with float32, as a table."""
    table = Table("price", "float32", "smaller")
    table.add_row("test accuracy", f"{price.accuracy_before:.2%}", f"{accuracy:.2%}")
    table.add_row("bytes", f"{price.bytes_before:,}", f"{size:,} ({size / price.bytes_before:.2f} x)")
    table.add_row(f"speed on the exporting CPU, batches of {price.speed_batch}", "1", f"{price.speed:.2f} x")
    table.add_row("a probability differs by", "", f"{price.probabilities:.4f} at most")
    table.add_row("a corner moves by", "", f"{price.corners_px:.3f} px at most, {price.corners_mean_px:.4f} on average")
    return table
