"""Hands a connection over to the WebSocket protocol that uvicorn brings, as uvicorn's own HTTP protocols do.

It depends on no private member: only on `uvicorn.Config.ws_protocol_class`, which `Config(ws=...)` sets, on the
arguments of its constructor, on its attribute ``client``, and on the methods of `asyncio.Protocol`.
"""

import asyncio
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from service.middleware.auth import MAX_HEADERS
from service.server.http_request import OWS, HTTPRequest

LONGEST_LINE = 8000
"""Longest line of a head that is handed over: the library leaves a connection open whose head it does not read."""


def wants_websocket(request: HTTPRequest) -> bool:
    """Whether a request, of which the head has arrived, asks for a WebSocket (RFC 6455, section 4.2.1)."""
    if request.method != b"GET" or request.http_version != "1.1" or not request.is_complete:
        return False
    upgrades = connects = False
    if len(request.headers) > MAX_HEADERS or len(request.target) > LONGEST_LINE:
        return False
    for name, value in request.headers:
        if len(name) + len(value) > LONGEST_LINE:
            return False
        if name == b"upgrade":
            upgrades = value.strip(OWS).lower() == b"websocket"
        elif name == b"connection":
            connects |= b"upgrade" in [token.strip(OWS).lower() for token in value.split(b",")]
    return upgrades and connects


def hand_over(
    request: HTTPRequest,
    transport: asyncio.Transport,
    config: uvicorn.Config,
    server_state: ServerState,
    app_state: dict[str, Any],
) -> None:
    """Have the WebSocket protocol of ``config`` go on with a connection, from the head of ``request`` on."""
    assert config.ws_protocol_class is not None  # noqa: S101 - see `wants_websocket`
    create = cast(Any, config.ws_protocol_class)
    protocol: asyncio.Protocol = create(config=config, server_state=server_state, app_state=app_state)
    lines = [b"GET %b HTTP/1.1\r\n" % request.target, *(b"%b: %b\r\n" % header for header in request.headers), b"\r\n"]
    protocol.connection_made(transport)
    protocol.client = request.client  # type: ignore[attr-defined]  # as proxies name it; the scope's client is made of it
    transport.set_protocol(protocol)
    protocol.data_received(b"".join(lines))
