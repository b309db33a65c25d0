"""Answers on their way out: all of a turn of the event loop together, a head and its body in one packet."""

import asyncio
from collections.abc import Sized
from typing import Any

from service.server.fast_path.heads import HEAD_END


class WriteBuffer:
    """What is to be sent, all of a turn of the event loop together.

    Sending may wake the client, which costs more than the sending itself. A client that gets several answers in a row
    is woken for the first only.
    """

    def __init__(self) -> None:
        self._corked: list[CorkedTransport] = []

    def add(self, corked: "CorkedTransport") -> None:
        """In the next turn have it send what it holds."""
        if not self._corked:
            asyncio.get_running_loop().call_soon(self._send)
        self._corked.append(corked)

    def _send(self) -> None:
        corked, self._corked = self._corked, []
        for transport in corked:
            transport.send()


class CorkedTransport:
    """A transport that holds what is written until the next turn of the event loop: one packet, not several."""

    def __init__(self, transport: asyncio.Transport, outbox: WriteBuffer, under_way: Sized) -> None:
        """``under_way`` are the requests that are: with one alone nobody gains by waiting longer than for a head."""
        self._transport = transport
        self.is_closing = transport.is_closing
        """Asked for with every answer; what is asked for seldom is found by `__getattr__`."""
        self._outbox = outbox
        self._under_way = under_way
        self._written: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send ``data``, in the next turn at the latest."""
        if not self._written:
            self._outbox.add(self)
        self._written.append(data)
        if len(self._under_way) <= 1 and not data.endswith(HEAD_END):
            self.send()

    def close(self) -> None:
        """Send what is held, then close."""
        self.send()
        self._transport.close()

    def send(self) -> None:
        """Send what is held."""
        written, self._written = self._written, []
        if written and not self.is_closing():  # else nobody is there any more
            self._transport.write(b"".join(written))
