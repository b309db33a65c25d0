"""Ray Serve: a proxy in front, the model in a process of its own that gets batches."""

import sys
from typing import Any

import ray
from ray import serve
from starlette.requests import Request
from work import Work  # beside this file

MAX_BATCH = 32
MOST_UNDER_WAY = 256


@serve.deployment(max_ongoing_requests=MOST_UNDER_WAY, ray_actor_options={"num_cpus": 0})
class Model:
    """All the work on a batch."""

    def __init__(self) -> None:
        self.work = Work()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.001)
    async def answers(self, bodies: list[bytes]) -> list[dict[str, Any]]:
        """The answers to a batch."""
        return self.work.infer([self.work.decode(body) for body in bodies])

    async def __call__(self, request: Request) -> Any:
        """One picture, as the body."""
        return await self.answers(await request.body())


if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False, logging_level="error", log_to_driver=False)
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(sys.argv[1])},
        logging_config={"enable_access_log": False, "log_level": "ERROR"},
    )
    serve.run(Model.bind(), route_prefix="/predict", blocking=True)
