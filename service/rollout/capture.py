"""Captures live pictures to train with.

These are pictures of which a model is not sure, and those on which two versions disagree.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import random

from service.background import Failures
from service.errors import CaptureError, SettingsError
from service.inference.registry import Seen
from service.metrics.recorder import Recorder
from service.rollout.capture_folder import CaptureFolder
from service.settings import Settings

MOST_WAITING = 32
"""Pictures that wait to be written; further ones are dropped."""
MOST_BYTES = 32 * 2**20
"""Their bytes."""


class Capture:
    """Chooses pictures, and has a thread write them. All methods are called on the event loop."""

    def __init__(self, settings: Settings, recorder: Recorder, failures: Failures) -> None:
        self._share = settings.capture_share
        self._below = settings.capture_below
        self._recorder = recorder
        self._failures = failures
        self._where = settings.capture
        self._folder = CaptureFolder(
            Path(settings.capture), settings.capture_pictures, settings.capture_bytes, settings.capture_days
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="capture")
        self._waiting = 0
        self._bytes = 0

    async def start(self) -> None:
        """Create the folder.

        Raises:
            SettingsError: it cannot be written to, or the table of a model cannot be used.
        """
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._folder.create)
        except OSError as error:
            raise SettingsError(f"cannot write to --capture {self._where}: {error.strerror}; correct it") from None
        except CaptureError as error:
            raise SettingsError(f"cannot use --capture {self._where}: {error}") from None

    def consider(self, seen: Seen) -> None:
        """Capture a picture if its class is not probable, or its reliability was told and is low."""
        probabilities = seen.output.probabilities
        if not len(probabilities) or seen.upload is None or seen.picture.crop:
            return
        score = seen.reliability.score if seen.reliability is not None else None
        if probabilities[0] < self._below or (score is not None and score < self._below):
            label = seen.model.manifest.label(int(seen.output.ranking[0]))
            self.take(seen.upload.data, seen.model.name, label)

    def take(self, content: bytes, model: str, label: str) -> None:
        """Capture a share of the pictures for which this is called, for the training of ``model``."""
        if random() >= self._share:  # noqa: S311 - no secret
            return
        if self._waiting >= MOST_WAITING or self._bytes + len(content) > MOST_BYTES:
            self._recorder.captured("dropped")
            return
        self._waiting += 1
        self._bytes += len(content)
        writing = asyncio.get_running_loop().run_in_executor(self._thread, self._folder.add, content, model, label)
        writing.add_done_callback(partial(self._written, len(content)))

    def _written(self, size: int, writing: "asyncio.Future[str]") -> None:
        self._waiting -= 1
        self._bytes -= size
        if writing.cancelled():
            return
        error = writing.exception()
        if error is None:
            self._recorder.captured(writing.result())
            return
        self._recorder.captured("failed")
        if isinstance(error, Exception):
            self._failures.record("capture", error)

    def close(self) -> None:
        """Write nothing more but what is being written."""
        self._thread.shutdown(wait=False, cancel_futures=True)
