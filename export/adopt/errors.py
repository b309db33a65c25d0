"""Reports errors that the code of a user raises."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from sys import stderr

import torch

from export.format.errors import ArtifactError

LONGEST = 300
"""Characters of a quoted message."""
OUTSIDE = tuple(str(Path(module.__file__ or "").parent) for module in (torch, traceback))
"""Folders of libraries, in whose lines no user looks for a mistake."""
OURS = str(Path(__file__).parents[1])


@contextmanager
def refusing(what: str, cure: str) -> Iterator[None]:
    """Convert any error of a user's code to an `ArtifactError`, and print to stderr what that code prints.

    ``what`` is the subject of the message, for example "importing my_module", and ``cure`` its end.
    """
    try:
        with redirect_stdout(stderr):
            yield
    except ArtifactError:
        raise
    except (Exception, SystemExit) as error:
        raise ArtifactError(f"{what} raised {quote(error)}; {cure}") from error


def quote(error: BaseException) -> str:
    """Return type, first line and place of an error in the user's code."""
    lines = str(error).strip().splitlines()
    said = lines[0][:LONGEST] if lines else ""
    return type(error).__name__ + (f": {said}" if said else "") + place(error)


def place(error: BaseException) -> str:
    """Return the last line of the user's code in a traceback, as `` (file:line)``."""
    lines = traceback.extract_tb(error.__traceback__)
    theirs = [line for line in lines if not line.filename.startswith((*OUTSIDE, OURS, "<"))]
    return f" ({Path(theirs[-1].filename).name}:{theirs[-1].lineno})" if theirs else ""
