"""Scores rows with an engine: the work of one process."""

import asyncio
import os
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from export.format.remote import is_url
from service.errors import InferenceFailedError, ModelLoadError, NotReadyError, OutputError, RequestError, TooLargeError
from service.inference.engine import Answer
from service.inference.rectified.image import RectifiedFile
from service.inference.rectified.options import RectifiedOptions
from service.inference.views.options import ViewOptions
from service.repository.startup import load_engine
from service.score.answers import Failure, to_batch
from service.score.places import UnreadableError, describe, read_picture
from service.score.rows import UNREADABLE, Row
from service.settings import Settings

URL_THREADS = 32
"""Pictures at URLs that a process reads at the same time."""
FOLDER_ROWS = 10_000
"""Rectified pictures in a folder."""
MAX_STEM = 80
MOST_TOGETHER = 128
"""Pictures and views of them that a process has at a time."""
OTHER_CHARACTERS = re.compile(r"[^\w.-]+", re.ASCII)


class ScoreOptions(NamedTuple):
    """The model, and what of its answers is kept."""

    settings: Settings
    """Of the engine; they load only the model."""
    name: str
    version: int
    digest: str
    top_k: int = 5
    rectified: Path | None = None
    """Folder of the rectified pictures; None writes none."""
    form: RectifiedOptions = RectifiedOptions()
    reliability: int = 0
    """Views of each picture from which its reliability is told; 0 tells none."""


class Scorer:
    """An engine with the model, and an event loop that runs while rows are scored."""

    def __init__(self, options: ScoreOptions) -> None:
        """Load the model.

        Raises:
            StartError: it cannot be loaded, or has changed since the run began.
        """
        self._options = options
        self._engine = load_engine(options.settings)
        self._model = self._engine.models.find(options.name, options.version)
        if self._model.digest != options.digest:
            raise ModelLoadError(f"{options.name}/{options.version} has changed meanwhile; choose another --out")
        self._views = ViewOptions(options.reliability)
        self._form = None if options.rectified is None else options.form
        self._reading = ThreadPoolExecutor(URL_THREADS, thread_name_prefix="urls")
        self._loop = asyncio.new_event_loop()  # a Runner would handle signals

    def score(self, rows: list[Row]) -> pa.RecordBatch:
        """Return the output of ``rows`` as `service.score.answers.SCHEMA` describes it.

        Raises:
            NotReadyError: the model hangs.
            OutputError: a rectified picture cannot be written.
        """
        answers = self._loop.run_until_complete(self._answer_all(rows))
        files = [self._write(row, answer) for row, answer in zip(rows, answers, strict=True)]
        return to_batch(rows, answers, files, self._options.top_k)

    def close(self) -> None:
        """Close the engine and the event loop."""
        self._loop.run_until_complete(self._engine.close())
        self._loop.close()
        self._reading.shutdown(wait=False)

    async def _answer_all(self, rows: list[Row]) -> list[Answer | Failure]:
        each = 1 + self._views.needed
        timeout_ms = self._options.settings.timeout_ms * len(rows) * each  # they have to take turns
        room = asyncio.Semaphore(MOST_TOGETHER // each)

        async def answer_in_turn(row: Row) -> Answer | Failure:
            async with room:
                return await self._answer(row, timeout_ms)

        found = await asyncio.gather(*map(answer_in_turn, rows))
        answers: list[Answer | Failure] = []
        for row, answer in zip(rows, found, strict=True):
            if isinstance(answer, Failure) and answer.code == InferenceFailedError.code:
                answers.append(await self._answer(row, timeout_ms))  # alone, since another picture may be to blame
            else:
                answers.append(answer)
        return answers

    async def _answer(self, row: Row, timeout_ms: int) -> Answer | Failure:
        if row.problem:
            return Failure(row.code, row.problem)
        max_bytes = self._options.settings.max_bytes
        try:
            content = await self._read(row.location, max_bytes) if row.content is None else row.content
            if len(content) > max_bytes:
                raise TooLargeError(f"the file has more than {max_bytes} bytes; raise STN_MAX_BYTES")
            return await self._engine.predict(self._model, content, self._form, timeout_ms, self._views)
        except UnreadableError as error:
            return Failure(UNREADABLE, str(error))
        except NotReadyError:
            raise
        except RequestError as error:
            return Failure(error.code, str(error))

    async def _read(self, location: str, max_bytes: int) -> bytes:
        if not is_url(location):
            return read_picture(location, max_bytes)
        reading = partial(read_picture, location, max_bytes)
        return await asyncio.get_running_loop().run_in_executor(self._reading, reading)

    def _write(self, row: Row, answer: Answer | Failure) -> str | None:
        """Write the rectified picture of a row, if there is one, and return its name in the folder."""
        if self._options.rectified is None or isinstance(answer, Failure) or not answer.rectified:
            return None
        picture: RectifiedFile = answer.rectified[0]
        stem = OTHER_CHARACTERS.sub("_", Path(row.path).stem)[:MAX_STEM]
        name = f"{row.number // FOLDER_ROWS:05d}/{row.number:09d}-{stem}.{picture.format}"
        write_whole(self._options.rectified / name, picture.content)
        return name


def write_whole(file: Path, content: bytes) -> None:
    """Write ``file`` whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(content)
        aside.replace(file)
    except OSError as error:
        if aside.parent.is_dir():
            aside.unlink(missing_ok=True)
        raise OutputError(f"cannot write {file}: {describe(error)}; free some space and run it again") from error
