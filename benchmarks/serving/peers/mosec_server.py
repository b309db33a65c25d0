"""mosec: a server in Rust, a worker in Python that gets batches."""

import json
import sys

from mosec import Server, Worker
from work import Work  # beside this file

MAX_BATCH = 32


class Model(Worker):
    """All the work on a batch."""

    def __init__(self) -> None:
        self.work = Work()

    def deserialize(self, data: bytes) -> bytes:
        """The body as it is."""
        return data

    def serialize(self, data: bytes) -> bytes:
        """The JSON as it is."""
        return data

    def forward(self, data: list[bytes]) -> list[bytes]:
        """The answers to a batch."""
        return [json.dumps(answer).encode() for answer in self.work.infer([self.work.decode(body) for body in data])]


if __name__ == "__main__":
    sys.argv[1:] = ["--port", sys.argv[1], "--log-level", "error"]
    server = Server()
    server.append_worker(Model, max_batch_size=MAX_BATCH, max_wait_time=1, route="/predict")
    server.run()
