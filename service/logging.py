"""Structured logs: one JSON object per line on stderr, from the service and from libraries alike.

Logging never blocks: a thread writes the lines. When stderr is not read, lines are dropped and counted.
"""

import atexit
import logging
import os
import select
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial

import orjson
import structlog

from service.errors import shorten
from service.redaction import Redactor
from service.request_context import current
from service.settings import Settings

LIBRARIES = {"PIL": logging.WARNING}
"""Minimum levels of libraries that log content of clients: Pillow logs the metadata of pictures."""
MAX_WAITING = 2**20
"""Bytes of queued lines; further lines are dropped."""
FLUSH_S = 1.0
"""Longest wait of `LogWriter.flush`."""
MAX_VALUE = 8000
"""The most characters of a value in a line."""


class LogWriter:
    """Writes lines to stderr from a thread, which starts with the first line.

    The thread writes to a duplicate of the file descriptor: in `sys.stderr` a blocked thread would hold a lock and
    block every other user.
    """

    def __init__(self, *, max_waiting: int = MAX_WAITING, as_json: bool = True) -> None:
        self.dropped = 0
        """The number of lines that were dropped."""
        self._reported = 0
        self._max_waiting = max_waiting
        self._as_json = as_json
        self._lines: deque[bytes] = deque()
        self._waiting = 0
        """Bytes that are not written yet, including the lines in progress."""
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def write(self, lines: bytes) -> None:
        """Queue one or more complete ``lines``, or drop them if the queue is full. Never blocks."""
        with self._changed:
            if self._waiting and self._waiting + len(lines) > self._max_waiting:
                self.dropped += lines.count(b"\n")
                return
            self._lines.append(lines)
            self._waiting += len(lines)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout_s: float = FLUSH_S) -> None:
        """Wait until everything is written, for up to ``timeout_s``."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, timeout_s)

    def close(self) -> None:
        """Flush, and end the thread if it does not block. A later line starts another one."""
        self.flush()
        with self._changed:
            if not self._waiting and self._thread is not None:
                self._lines.append(b"")
                self._thread = None
                self._changed.notify_all()

    def _run(self) -> None:
        descriptor = duplicate_stderr()
        while lines := self._next():
            written = put(descriptor, lines)
            with self._changed:
                if not written:
                    self.dropped += lines.count(b"\n")
                self._waiting -= len(lines)
                missing, self._reported = self.dropped - self._reported, self.dropped if written else self._reported
                self._changed.notify_all()
            if written and missing:
                put(descriptor, self._describe(missing))
        if descriptor is not None:
            os.close(descriptor)

    def _next(self) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self._lines)
            return self._lines.popleft()

    def _describe(self, missing: int) -> bytes:
        """Format the line that reports how many lines are missing before it."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if not self._as_json:
            return f"{moment} [warning  ] log_lines_dropped lines={missing}\n".encode()
        line = {"event": "log_lines_dropped", "level": "warning", "logger": __name__, "timestamp": moment}
        return orjson.dumps(line | {"lines": missing}) + b"\n"


class WriterHandler(logging.Handler):
    """Hands log records to a `LogWriter`."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._writer.write(f"{self.format(record)}\n".encode(errors="backslashreplace"))
        except Exception as error:  # noqa: BLE001 - a record that cannot be formatted must not fail its caller
            self._writer.write(f"a log record of {record.name} cannot be formatted: {type(error).__name__}\n".encode())

    def flush(self) -> None:
        self._writer.flush()


def duplicate_stderr() -> int | None:
    """Duplicate the file descriptor of stderr; None where stderr is no file, as in some notebooks and tests."""
    try:
        return os.dup(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):  # None, no file, or closed
        return None


def put(descriptor: int | None, lines: bytes) -> bool:
    """Write ``lines``, blocking until they are read; False if they cannot be written."""
    if descriptor is None:
        try:
            sys.stderr.write(lines.decode())
            sys.stderr.flush()
        except (AttributeError, OSError, ValueError):
            return False
        return True
    remaining = memoryview(lines)
    while remaining:
        try:
            remaining = remaining[os.write(descriptor, remaining) :]
        except BlockingIOError:  # the reader has made it non-blocking
            with suppress(OSError):
                select.select([], [descriptor], [], 1.0)
        except OSError:
            return False
    return True


def configure_logs(settings: Settings, redactor: Redactor) -> LogWriter:
    """Send all logs of this process, with keys hidden, to the returned writer.

    Only the server process calls this. An application inside of another one leaves logging to that process.
    """
    shared: list[structlog.typing.Processor] = [
        add_request_id,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        partial(hide_keys_in_event, redactor),
        shorten_values,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    as_json = settings.log_format == "json"
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    writer = LogWriter(as_json=as_json)
    handler = WriterHandler(writer)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
        )
    )
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    for name, level in LIBRARIES.items():
        logging.getLogger(name).setLevel(level)
    atexit.register(writer.flush)
    return writer


def add_request_id(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add the id of the current request."""
    context = current.get()
    if context is not None:
        event["request_id"] = context.id
    return event


def hide_keys_in_event(
    redactor: Redactor, _: object, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Hide keys in every text of an event, tracebacks included."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = redactor.redact(value)
    return event


def shorten_values(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Bound the length of a line."""
    return {name: shorten(value, MAX_VALUE) if isinstance(value, str) else value for name, value in event.items()}
