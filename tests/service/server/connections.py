"""A connection without a network: the protocol gets what a client sends, and what the client gets is written down."""

import asyncio
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from service.middleware.access_log import AccessLog
from service.redaction import Redactor
from service.server.options import ProtocolOptions
from service.server.protocol import HTTPProtocol, protocol_class
from service.settings import Settings

DATE = (b"date", b"Sun, 22 Nov 2026 12:00:00 GMT")


class Recorder(asyncio.Transport):
    """Writes down what is sent, in a list that others may share."""

    def __init__(self, sent: list[bytes]) -> None:
        super().__init__()
        self.sent = sent
        self.closed = False
        self.aborted = False
        self.paused = False
        self.unsent = 0
        self.peer: tuple[str, int] = ("127.0.0.1", 1)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.closed:
            raise RuntimeError("the handler is closed")
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.peer if name == "peername" else default

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Line:
    """A connection to ``app``."""

    def __init__(self, app: ASGIApp, root_path: str = "", **options: Any) -> None:
        self.sent: list[bytes] = []
        self.transport = Recorder(self.sent)
        self.state = ServerState()
        self.state.default_headers = [DATE]
        self.protocol = connect(app, self.state, self.transport, root_path, **options)

    @property
    def received(self) -> bytes:
        """All that the client got."""
        return b"".join(self.sent)

    async def ask(self, data: bytes) -> list[bytes]:
        """Send ``data``; what has been answered a little later."""
        self.protocol.data_received(data)
        await turns()
        return self.sent

    def lose(self) -> None:
        """Have the client leave."""
        self.transport.closed = True
        self.protocol.connection_lost(None)


def connect(
    app: ASGIApp, state: ServerState, transport: asyncio.Transport, root_path: str = "", **options: Any
) -> HTTPProtocol:
    """A connection to ``app`` over ``transport``, with ``options`` of `ProtocolOptions`."""
    config = uvicorn.Config(app, log_config=None, root_path=root_path)
    config.load()
    common: dict[str, Any] = {
        "access_log": AccessLog(Settings(access_log="none")),
        "redactor": Redactor(None),
    }
    protocol = protocol_class(ProtocolOptions(**(common | options)))(config, state, {})
    protocol.connection_made(transport)
    return protocol


async def turns() -> None:
    """Let the event loop turn, often enough for all that is to happen at once."""
    for _ in range(12):
        await asyncio.sleep(0)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what was asked for and sent."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    content = f"{scope['method']} {scope['path']}?{scope['query_string'].decode()} ".encode() + body
    headers = [(b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})
