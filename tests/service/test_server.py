import asyncio
import os
import socket

import pytest
import uvloop

from service.server import ACCEPTED_A_TURN, several


def test_connections_that_come_together_are_accepted_together() -> None:
    accepted = 0

    class Counter(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            nonlocal accepted
            accepted += 1

    async def turns() -> int:
        """Of the event loop, until all are accepted."""
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            for each in several(listener):
                await loop.create_server(Counter, sock=each)
            clients = [socket.create_connection(address) for _ in range(2 * ACCEPTED_A_TURN)]
            count = 0
            while accepted < len(clients):
                await asyncio.sleep(0)
                count += 1
            for client in clients:
                client.close()
        return count

    assert uvloop.run(turns()) <= 4, "one a turn would be 16"


def test_a_worker_that_begins_does_not_make_the_others_wait_for_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)  # as it is where another accepts from it
        blocking = []
        copy = socket.socket.dup

        def watched(original: socket.socket) -> socket.socket:
            found = copy(original)
            blocking.append(os.get_blocking(listener.fileno()))
            return found

        monkeypatch.setattr(socket.socket, "dup", watched)
        received = socket.socket(fileno=os.dup(listener.fileno()))  # as a worker gets it, which does not know
        for each in several(received):
            each.close()
    assert blocking == [False] * (ACCEPTED_A_TURN - 1)
