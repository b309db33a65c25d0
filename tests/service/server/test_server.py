"""The process around the event loop: how connections come in, and that it ends whatever holds it."""

import asyncio
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvloop

from service.server.listening import ACCEPTED_A_TURN, copies
from tests.conftest import STOP_S, start_service, wait_until
from tests.service.answers import PICTURE, predict, receive, refused
from tests.service.exposed import scrape
from tests.service.server.test_overload import EVIL, ask, misbehaving, wait_for
from tests.service.server.test_process import begin_upload, wait_until_it_takes_no_connections

HANG_S = 2


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
            for each in copies(listener):
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
        for each in copies(received):
            each.close()
    assert blocking == [False] * (ACCEPTED_A_TURN - 1)


def test_a_service_that_stops_is_not_taken_for_one_that_stands_still() -> None:
    with (
        start_service("--inference-timeout-s", HANG_S, "--shutdown-timeout-s", 10 * STOP_S) as service,
        begin_upload(service) as connection,
    ):
        service.process.send_signal(signal.SIGTERM)
        wait_until_it_takes_no_connections(service)
        time.sleep(2 * HANG_S + 1)
        connection.sendall(PICTURE)
        assert receive(connection).status == 200
        assert service.process.wait(STOP_S) == 0


def test_an_inference_keeps_a_service_that_stops_no_longer_than_its_requests() -> None:
    with (
        misbehaving("hanging", "--inference-timeout-s", 10 * STOP_S, "--shutdown-timeout-s", 1) as service,
        ThreadPoolExecutor(1) as threads,
    ):
        hanging = threads.submit(ask, service, EVIL)
        wait_until(lambda: scrape(service)("stn_pictures_in_flight") == 1)
        service.process.send_signal(signal.SIGTERM)
        refused(hanging.result(), 503, "not_ready")
        assert service.process.wait(STOP_S) == 0


@pytest.mark.parametrize("signals", [1, 2])
def test_whatever_else_holds_it_a_service_ends_when_its_time_is_over_or_at_a_second_signal(signals: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # a collector that takes traces and says nothing
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{mute.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": str(10 * STOP_S),
        }
        shutdown_timeout_s = 1 if signals == 1 else 10 * STOP_S
        with start_service("--traces", "true", "--shutdown-timeout-s", shutdown_timeout_s, env=env) as service:
            predict(service)
            service.process.send_signal(signal.SIGTERM)
            wait_for(service, "stopped")
            for _ in range(signals - 1):
                service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(STOP_S / 2) == 0
