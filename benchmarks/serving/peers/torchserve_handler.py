"""What TorchServe's worker runs; torchserve_server.py starts it."""

import json
import logging
from typing import Any

from ts.context import Context
from work import Work  # beside this file


class Handler:
    """All the work on a batch."""

    def initialize(self, context: Context) -> None:
        """Load the model."""
        logging.getLogger().setLevel(logging.ERROR)  # or lines about every batch go through a pipe to the front
        self.work = Work()

    def handle(self, data: list[dict[str, Any]], context: Context) -> list[bytes]:
        """The answers to a batch."""
        answers = self.work.infer([self.work.decode(request["body"]) for request in data])
        return [json.dumps(answer).encode() for answer in answers]
