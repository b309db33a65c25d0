"""A server that answers as it is told, for what the real one does only at its worst moments."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import NamedTuple

from service.schemas.answers import Prediction

PREDICTION = Prediction.model_validate(
    {
        "model": {"name": "digits", "version": 1},
        "predictions": [{"label": "7", "index": 7, "probability": 1.0}],
        "theta": [[1, 0, 0], [0, 1, 0]],
        "corners": [[0, 0], [8, 0], [8, 8], [0, 8]],
        "rectified": None,
        "batch_size": 1,
        "timings_ms": {"decode": 1, "queue": 1, "inference": 1, "encode": 1, "total": 4},
    }
).model_dump_json()


class RawResponse(NamedTuple):
    """One answer; status 0 closes the connection instead."""

    status: int
    body: str
    headers: Mapping[str, str] = MappingProxyType({})


def failure(status: int, code: str, **headers: str) -> RawResponse:
    body = f'{{"error": {{"code": "{code}", "message": "no"}}}}'
    return RawResponse(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


GOOD = RawResponse(200, PREDICTION)


@contextmanager
def server(*script: RawResponse) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Its URL, and of each request that came its path and headers; the last reply is repeated."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            reply = script[min(len(seen), len(script) - 1)]
            seen.append({"path": self.path} | {name.lower(): value for name, value in self.headers.items()})
            if not reply.status:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body.encode())

        do_GET = do_POST = answer  # noqa: N815 - names of the base class

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.server_address[1]}", seen
        finally:
            listener.shutdown()
            thread.join()
