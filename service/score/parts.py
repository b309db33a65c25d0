"""The folder of the output: what was asked for, and parts that are written whole or not at all."""

import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import OutputError
from service.score.places import describe

RECORD = "_run.json"
LISTING = "_input.parquet"
ASIDE = "_part.tmp"
"""Names that begin with an underscore are no part of the data for PyArrow, Spark and others."""
FORMAT = 1
PART_S = 60.0
"""Seconds after which a part is written even if it has few rows: at most so much work is lost."""
STATE = b"stn-serve"
"""Key in the metadata of a part for where the next run goes on."""


class Parts:
    """The output of one run, which may have been interrupted. Leaving the context unlocks the folder."""

    def __init__(self, folder: Path, asked: Mapping[str, Any], part_rows: int) -> None:
        """Create ``folder``, or go on with the parts that are in it if their run was ``asked`` for the same.

        Raises:
            OutputError: the folder cannot be used, or holds something else.
        """
        self.folder = folder
        self.next_row = 0
        """Number of the first row of the input that is in no part."""
        self.rows = 0
        """Rows in the parts."""
        self.errors: Counter[str] = Counter()
        """Rows with each error in the parts."""
        self._part_rows = part_rows
        self._batches: list[pa.RecordBatch] = []
        self._began = 0.0
        self._asked = {"format": FORMAT, **asked}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = take_lock(folder)
            self._count = 0
            self._is_complete = self._read_record()
            self._read_parts()
        except OSError as error:
            raise OutputError(f"{folder} cannot be used: {describe(error)}; choose another --out") from error

    @property
    def listing(self) -> Path:
        """The file for a listing of the input."""
        return self.folder / LISTING

    @property
    def is_complete(self) -> bool:
        """Whether the parts hold all rows of the input."""
        return self._is_complete

    def begin(self) -> None:
        """Record what was asked for, before the first part."""
        if not (self.folder / RECORD).exists():
            self._write_record(complete=False)

    def add(self, batch: pa.RecordBatch, next_row: int) -> None:
        """Take the answers up to row ``next_row`` of the input, and write a part when there are enough.

        Raises:
            OutputError: the part cannot be written.
        """
        if not self._batches:
            self._began = time.monotonic()
        self._batches.append(batch)
        self.next_row = next_row
        waiting = sum(len(each) for each in self._batches)
        if waiting >= self._part_rows or time.monotonic() - self._began > PART_S:
            self.flush()

    def flush(self) -> None:
        """Write the answers that are in no part yet.

        Raises:
            OutputError: the part cannot be written.
        """
        if not self._batches:
            return
        table = pa.Table.from_batches(self._batches)
        errors = Counter(code for code in table.column("error").to_pylist() if code)
        state = json.dumps({"next_row": self.next_row, "errors": errors})
        aside, part = self.folder / ASIDE, self._part(self._count)
        try:
            with aside.open("wb") as file:
                pq.write_table(table.replace_schema_metadata({STATE: state}), file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            aside.replace(part)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise OutputError(
                f"cannot write {part}: {describe(error)}; free some space; the same command then goes on from there"
            ) from error
        self._batches = []
        self._count += 1
        self.rows += len(table)
        self.errors += errors

    def finish(self) -> None:
        """Write what is left, and record that this is all."""
        self.flush()
        self._write_record(complete=True)
        self._is_complete = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.parquet"

    def _read_record(self) -> bool:
        """Compare the record with what is asked for, and return whether its run is complete."""
        file = self.folder / RECORD
        if not file.exists():
            if any(not entry.name.startswith("_") for entry in self.folder.iterdir()):
                raise OutputError(f"{self.folder} holds other files; choose an empty folder or a new one for --out")
            (self.folder / LISTING).unlink(missing_ok=True)  # of a run that was killed before it began
            return False
        try:
            found = json.loads(file.read_text())
            recorded = {name: found[name] for name in self._asked}
            is_complete = bool(found["complete"])
        except (ValueError, TypeError, KeyError) as error:
            raise OutputError(f"{file} is damaged; remove the folder, or choose another --out") from error
        # JSON has no tuples.
        asked = json.loads(json.dumps(self._asked))
        if differing := [name for name in asked if recorded[name] != asked[name]]:
            there = ", ".join(f"{name} {shown(recorded[name])}, not {shown(asked[name])}" for name in differing)
            raise OutputError(
                f"{self.folder} holds the answers of another run: {there}; choose another --out, or remove the folder"
            )
        return is_complete

    def _read_parts(self) -> None:
        found = sorted(self.folder.glob("part-*.parquet"))
        for number, part in enumerate(found):
            cure = "remove it and those after it, and run it again"
            if part != self._part(number):
                raise OutputError(f"the part before {part} is missing; {cure}")
            try:
                metadata = pq.read_metadata(part)
                state = json.loads(metadata.metadata[STATE])
                self.next_row = int(state["next_row"])
                self.errors += Counter(state["errors"])
            except (pa.ArrowException, ValueError, TypeError, KeyError) as error:
                raise OutputError(f"{part} is damaged; {cure}") from error
            self.rows += metadata.num_rows
        self._count = len(found)

    def _write_record(self, *, complete: bool) -> None:
        aside = self.folder / f"{RECORD}.tmp"
        try:
            aside.write_text(json.dumps({**self._asked, "complete": complete}, indent=1) + "\n")
            aside.replace(self.folder / RECORD)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise OutputError(f"cannot write {self.folder / RECORD}: {describe(error)}; free some space") from error


def take_lock(folder: Path) -> int:
    """Lock ``folder``, until the process ends in any way, and return the file descriptor.

    Raises:
        OutputError: another run has the lock.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise OutputError(f"another run is writing to {folder}; wait for its end, or choose another --out") from error
    return descriptor


def shown(value: object) -> str:
    """Return a short form of ``value`` for a message."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
