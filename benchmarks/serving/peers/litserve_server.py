"""LitServe: FastAPI in front, the model in a process of its own. It takes no raw bodies: pictures come as multipart."""

import sys
from typing import Any

import litserve
from fastapi import Request
from numpy.typing import NDArray
from work import Work  # beside this file

MAX_BATCH = 32


class Api(litserve.LitAPI):
    """All the work on a batch."""

    def setup(self, device: str) -> None:
        """Load the model."""
        self.work = Work()

    def decode_request(self, request: Request) -> NDArray[Any]:
        """One picture."""
        return self.work.decode(request["image"].file.read())  # type: ignore[index]

    def batch(self, inputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """Left to the work."""
        return inputs

    def predict(self, inputs: list[NDArray[Any]]) -> list[dict[str, Any]]:
        """The answers to a batch."""
        return self.work.infer(inputs)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """They are separate already."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """FastAPI makes it JSON."""
        return output


if __name__ == "__main__":
    api = Api(max_batch_size=MAX_BATCH, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", track_requests=False)
    server.run(port=int(sys.argv[1]), log_level="error", generate_client_file=False, num_api_servers=1)
