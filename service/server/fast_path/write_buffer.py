"""Answers on their way out: those of one turn of the event loop leave together."""

import asyncio
from collections.abc import Sized


class WriteBuffer:
    """What is to be sent at the end of a turn of the event loop.

    Sending may wake the client, which costs more than the sending itself. A client that gets several answers in a row
    is woken for the first one only.
    """

    def __init__(self) -> None:
        self._corked: list[CorkedTransport] = []

    def add(self, transport: "CorkedTransport") -> None:
        """Have ``transport`` send what it holds in the next turn."""
        if not self._corked:
            asyncio.get_running_loop().call_soon(self._send)
        self._corked.append(transport)

    def _send(self) -> None:
        corked, self._corked = self._corked, []
        for transport in corked:
            transport.send()


class CorkedTransport:
    """A transport that may hold what is written until the next turn of the event loop."""

    def __init__(self, transport: asyncio.Transport, write_buffer: WriteBuffer, in_progress: Sized) -> None:
        """``in_progress`` are the requests that are being answered: with one alone, nothing is gained by waiting."""
        self._transport = transport
        self._write_buffer = write_buffer
        self._in_progress = in_progress
        self._written: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send ``data``, in the next turn at the latest."""
        if not self._written:
            if len(self._in_progress) <= 1:
                if not self._transport.is_closing():
                    self._transport.write(data)
                return
            self._write_buffer.add(self)
        self._written.append(data)

    def close(self) -> None:
        """Send what is held, then close."""
        self.send()
        self._transport.close()

    def send(self) -> None:
        """Send what is held, unless the connection has gone."""
        written, self._written = self._written, []
        if written and not self._transport.is_closing():
            self._transport.write(b"".join(written) if len(written) > 1 else written[0])
