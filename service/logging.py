"""Structured logs: one JSON object a line on stderr, from the service and from uvicorn alike."""

import logging
import sys

import structlog

from service.errors import shorten
from service.request_context import current
from service.settings import Settings

OTHERS = {"PIL": logging.WARNING}
"""Loggers of libraries that say what clients send: Pillow would say what stands in a picture's metadata."""
MAX_VALUE = 8000
"""Characters of a value in a line."""


def configure_logs(settings: Settings) -> None:
    """Send everything that is logged through structlog."""
    shared: list[structlog.typing.Processor] = [
        add_request_id,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        shorten_values,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
        )
    )
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    for name, level in OTHERS.items():
        logging.getLogger(name).setLevel(level)


def add_request_id(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Say during which request something was logged."""
    exchange = current.get()
    if exchange is not None:
        event["request_id"] = exchange.id
    return event


def shorten_values(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Bound the length of a line, whatever it says."""
    return {name: shorten(value, MAX_VALUE) if isinstance(value, str) else value for name, value in event.items()}
