"""Logging never blocks, whoever reads it or does not."""

import json
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import httpx
import pytest

from service.logging import MAX_WAITING, LogWriter, WriterHandler
from tests.conftest import REPOSITORY, START_S, STOP_S, clean_environment, command
from tests.service.answers import PICTURE
from tests.service.broken import DAMAGED
from tests.service.exposed import Exposed

PIPE = 64 * 2**10
"""Bytes that a pipe of Linux holds."""
LINE = 300
"""Bytes that the line of a request has at least."""
PIPELINED = 20


class Reader:
    """A pipe in the place of stderr, which is read only when that is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._read, write = os.pipe()
        self._file = os.fdopen(write, "w")
        monkeypatch.setattr("sys.stderr", self._file)

    def close(self) -> None:
        self._file.close()

    def rest(self) -> list[bytes]:
        """All lines, once every writer has closed the pipe."""
        with os.fdopen(self._read, "rb") as file:
            return file.read().splitlines()


def test_lines_are_written_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = Reader(monkeypatch), LogWriter()
    lines = [b"%d" % number for number in range(1000)]
    for line in lines:
        writer.write(line + b"\n")
    writer.close()
    writer.write(b"later\n")
    writer.close()
    reader.close()
    assert reader.rest() == [*lines, b"later"]
    assert writer.dropped == 0


def test_lines_that_nobody_reads_are_dropped_and_counted_and_reported_later(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = Reader(monkeypatch), LogWriter(max_waiting=10_000)
    line = b"x" * 99 + b"\n"
    count = 2 * (PIPE + 10_000) // len(line)
    started = time.perf_counter()
    for _ in range(count):
        writer.write(line)
    assert time.perf_counter() - started < STOP_S
    assert writer.dropped > 0
    dropped = writer.dropped
    reading = threading.Thread(target=lambda: found.extend(reader.rest()))
    found: list[bytes] = []
    reading.start()
    writer.close()
    reader.close()
    reading.join()
    reports = [json.loads(one) for one in found if one.startswith(b"{")]
    assert {(report["event"], report["level"]) for report in reports} == {("log_lines_dropped", "warning")}
    assert sum(report["lines"] for report in reports) == dropped
    assert found.count(line[:-1]) == count - dropped


def test_a_writer_does_not_wait_for_ever_for_a_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = Reader(monkeypatch), LogWriter()
    writer.write(b"x" * 2 * PIPE + b"\n")
    writer.flush(0.05)
    threading.Thread(target=reader.rest).start()
    writer.close()
    reader.close()


def test_a_pipe_that_was_closed_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = Reader(monkeypatch), LogWriter()
    os.close(reader._read)
    writer.write(b"one\ntwo\n")
    writer.close()
    assert writer.dropped == 2
    reader.close()


def test_a_record_that_cannot_be_formatted_becomes_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = Reader(monkeypatch), LogWriter()
    logger = logging.Logger("wrong")
    logger.addHandler(WriterHandler(writer))
    logger.warning("%d", "no number")
    logger.warning("\ud800")
    writer.close()
    reader.close()
    assert reader.rest() == [b"a log record of wrong cannot be formatted: TypeError", b"\\ud800"]


@contextmanager
def unread(*flags: object) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    """The real service, whose stderr nobody reads."""
    process = subprocess.Popen(
        command(["--port", "0", *flags]),
        cwd=REPOSITORY,
        env=clean_environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    watchdog = threading.Timer(2 * START_S, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        url = process.stdout.readline().decode().split(" at ")[1].split()[0]
        with httpx.Client(base_url=url, timeout=STOP_S) as client:
            yield client, process
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def fill_the_log(url: str, requests: int) -> None:
    """Make so many requests, each with a long line in the log, on one connection."""
    request = f"GET /nowhere/{'x' * 190} HTTP/1.1\r\nHost: test\r\n\r\n".encode()
    host, port = httpx.URL(url).host, httpx.URL(url).port or 80
    with socket.create_connection((host, port), timeout=STOP_S) as connection, connection.makefile("rb") as answers:
        for _ in range(requests // PIPELINED):
            connection.sendall(PIPELINED * request)
            statuses = 0
            while statuses < PIPELINED:
                statuses += b"HTTP/1.1 404" in answers.readline()


@pytest.mark.parametrize("flags", [(), ("--workers", 2)], ids=["alone", "workers"])
def test_the_service_answers_and_stops_though_nobody_reads_its_log(flags: tuple[object, ...]) -> None:
    with unread(*flags) as (client, process):
        url = str(client.base_url)
        fill_the_log(url, 3 * PIPE // LINE)
        for content in (PICTURE, DAMAGED["PNG without pixels"], b"seven"):
            client.post("/predict", content=content)
        host, port = httpx.URL(url).host, httpx.URL(url).port or 80
        with socket.create_connection((host, port), timeout=STOP_S) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 400")
        assert client.post("/predict", content=PICTURE).status_code == 200
        assert client.get("/health/ready").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_S) == 0


def test_the_service_counts_the_lines_that_are_missing_and_says_so_when_it_is_read_again() -> None:
    with unread("--log-format", "console") as (client, process):

        def dropped() -> float:
            fill_the_log(str(client.base_url), 2 * (PIPE + MAX_WAITING) // LINE)
            return Exposed(client.get("/metrics").text)("stn_log_lines_dropped_total")

        count = dropped()
        assert count > 0
        assert process.stderr is not None
        said = read_until(process.stderr, b"log_lines_dropped lines=")
    assert int(said.rpartition(b"=")[2]) >= count


def read_until(pipe: IO[bytes], text: bytes) -> bytes:
    """The first line with ``text``."""
    return next(line for line in pipe if text in line)
