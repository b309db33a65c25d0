"""``python -m service``: serve until told to stop."""

import logging
import socket
import sys
from collections.abc import Sequence

from service import __version__
from service.app import create_app, get_state
from service.errors import StartError
from service.inference.registry import Models
from service.logging import configure_logs
from service.middleware.auth import AccessPolicy
from service.repository.repository import initial_statuses
from service.repository.version_policy import startup_rollouts
from service.server.listening import check_grpc, listen, url_of
from service.server.server import Server
from service.settings import Settings, load_settings
from service.workers.supervisor import Supervisor


def main(arguments: Sequence[str]) -> int:
    """Serve until told to stop. An error at the start becomes one line and exit code 1."""
    try:
        settings = load_settings(arguments)
        check_grpc(settings)
        redactor = AccessPolicy(settings).redactor()
        log_writer = configure_logs(settings, redactor)
        app = create_app(settings, log_writer=log_writer)
        models = get_state(app).load()
        listener = listen(settings)
        line = announcement(settings, models, listener)

        def announce() -> None:
            print(line, flush=True)  # noqa: T201

        if settings.workers > 1:
            present = initial_statuses(models, startup_rollouts(settings))
            del app, models  # each worker loads its own; these only prove that they load
            return Supervisor(settings, listener, announce, present, log_writer).run()
        server = Server(app, announce)
    except StartError as error:
        logging.shutdown()  # a thread writes the log; the error is to be the last line
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the command line's answer to its user
        return 1
    return server.serve_on(listener)


def announcement(settings: Settings, models: Models, listener: socket.socket) -> str:
    """Format the line with the served models and the address."""
    address = url_of(listener)
    served = ", ".join(f"{model.name}/{model.version} on {model.device}" for model in models)
    workers = f" with {settings.workers} workers" if settings.workers > 1 else ""
    return f"stn-serve {__version__} serves {served}{workers} at {address} (docs: {address}/docs)"
