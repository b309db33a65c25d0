"""Pictures as frames of a stream, and answers as lines of JSON."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TypeVar

from pydantic import BaseModel

from service.client.calls import read
from service.client.errors import FileError
from service.client.streams import AsyncStream, FrameAnswer

STDIN = Path("-")
"""Stands for the names of pictures on the standard input, a line each."""

Value = TypeVar("Value")


def as_line(picture: Path, answer: BaseModel, **facts: int) -> str:
    """The ``answer`` to ``picture`` as JSON without line breaks, after further ``facts``."""
    return json.dumps({"picture": str(picture)} | facts | answer.model_dump(mode="json"))


def find_pictures(sources: Sequence[Path]) -> Iterator[Path]:
    """Yield each source, the visible files of a source that is a folder, by name, or the names in `STDIN`.

    Raises:
        FileError: a folder cannot be read.
    """
    for source in sources:
        if source == STDIN:
            # Not from sys.stdin, which Python closes at its end, and cannot while a thread waits for a line of it.
            with open(sys.stdin.fileno(), encoding="utf-8", errors="surrogateescape", closefd=False) as names:
                yield from (Path(name) for line in names if (name := line.rstrip("\r\n")))
        elif source.is_dir():
            try:
                files = sorted(file for file in source.iterdir() if file.is_file() and not file.name.startswith("."))
            except OSError as error:
                raise FileError(f"cannot read {source}: {error.strerror or error}") from error
            yield from files
        else:
            yield source


async def stream_pictures(
    stream: AsyncStream, pictures: Iterator[Path], rate: float | None, complain: Callable[[str], None]
) -> AsyncIterator[tuple[Path, FrameAnswer]]:
    """Send ``pictures`` and yield each that is answered, with its answer.

    There are ``rate`` pictures a second, of which the newest are answered. Without a rate, each is sent once its
    predecessor is answered. ``complain`` is told of files that cannot be read.

    Raises:
        ClientError: the stream has ended, or a folder cannot be read.
    """
    sent: dict[int, Path] = {}
    idle = asyncio.Event()

    async def send_all() -> int:
        """Return the number of frames."""
        number, loop = 0, asyncio.get_running_loop()
        due = loop.time()
        while (picture := await beside(partial(next, pictures, None))) is not None:
            try:
                content = await beside(partial(read, picture))
            except FileError as error:
                complain(str(error))
                continue
            if rate is not None:
                await asyncio.sleep(max(0.0, due - loop.time()))
                due = max(due + 1 / rate, loop.time())
            sent[number] = picture
            idle.clear()
            await stream.send(content)
            number += 1
            if rate is None:
                await idle.wait()
        return number

    sending, answered = asyncio.ensure_future(send_all()), 0
    receiving = asyncio.ensure_future(stream.receive())
    try:
        while not sending.done() or answered < sending.result():
            waiting = {receiving} if sending.done() else {receiving, sending}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                found = receiving.result()
                receiving = asyncio.ensure_future(stream.receive())
                answered = found.frame + 1
                idle.set()
                yield sent[found.frame], found
                for number in [number for number in sent if number <= found.frame]:
                    del sent[number]
    finally:
        for task in (sending, receiving):
            task.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)


def beside(call: Callable[[], Value]) -> asyncio.Future[Value]:
    """Run ``call`` in a thread for which the end of the program does not wait, since it may block for ever."""
    job: Future[Value] = Future()
    job.set_running_or_notify_cancel()

    def work() -> None:
        try:
            job.set_result(call())
        except Exception as error:  # noqa: BLE001 - it is raised where the result is awaited
            job.set_exception(error)

    Thread(target=work, daemon=True).start()
    return asyncio.wrap_future(job)
