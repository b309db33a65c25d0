"""The service under Ray Serve: `serve.yaml` starts it. Settings are STN_* in the environment of the replicas."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from ray import serve

from service.api.metrics import create_metrics_route
from service.app import create_app, get_state

METRICS_PORT = int(os.environ.get("RAY_STN_METRICS_PORT", "9101"))
"""Each replica exposes its metrics at the first free port of its node from here on."""
MOST_REPLICAS = 64
"""Ports that are tried."""


def create_replica() -> FastAPI:
    """Create the application of one replica.

    Requests reach any replica, so that GET /metrics of the application would each time be that of another one.
    Therefore each replica exposes its metrics at a port of its own too.
    """
    app = create_app()
    load_models = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with load_models(app):
            exposed = FastAPI(openapi_url=None)
            exposed.include_router(create_metrics_route(lambda: get_state(app).metrics))
            config = uvicorn.Config(exposed, lifespan="off", log_config=None, access_log=False)
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve(sockets=[free_socket()]))
            try:
                yield
            finally:
                server.should_exit = True
                await serving

    app.router.lifespan_context = lifespan
    return app


def free_socket() -> socket.socket:
    """Listen at the first free port from `METRICS_PORT` on.

    Raises:
        OSError: all are in use.
    """
    for port in range(METRICS_PORT, METRICS_PORT + MOST_REPLICAS):
        try:
            return socket.create_server(("", port))
        except OSError:
            continue
    raise OSError(f"the ports {METRICS_PORT} to {METRICS_PORT + MOST_REPLICAS - 1} are in use")


@serve.deployment
@serve.ingress(create_replica)
class StnServe:
    """A replica. All options of its deployment are in `serve.yaml`."""


app = StnServe.bind()
