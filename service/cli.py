"""What ``python -m service`` does: serve."""

import socket
import sys
from collections.abc import Sequence

from service import __version__
from service.errors import StartError
from service.inference.registry import Models, load_models
from service.logging import configure_logs
from service.middleware.auth import AccessPolicy
from service.repository.repository import initial_statuses
from service.server.server import Server, listen
from service.settings import Settings, load_settings
from service.workers.supervisor import Supervisor


def main(arguments: Sequence[str]) -> int:
    """Serve until told to stop; what prevents that becomes one line and exit code 1."""
    try:
        settings = load_settings(arguments)
        configure_logs(settings)
        AccessPolicy(settings)  # complains of wrong keys before models are loaded
        models = load_models(settings)
        listener = listen(settings)
        line = announcement(settings, models, listener)

        def announce() -> None:
            print(line, flush=True)  # noqa: T201

        if settings.workers > 1:
            present = initial_statuses(models)
            del models  # each worker has its own; here they were only to find out whether they load
            return Supervisor(settings, listener, announce, present).run()
        server = Server(settings, models, announce)
    except StartError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the command line's answer to its user
        return 1
    return server.serve_on(listener)


def announcement(settings: Settings, models: Models, listener: socket.socket) -> str:
    """What is served, and where."""
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    served = ", ".join(f"{model.name}/{model.version} on {model.device}" for model in models)
    workers = f" with {settings.workers} workers" if settings.workers > 1 else ""
    return f"stn-serve {__version__} serves {served}{workers} at {address} (docs: {address}/docs)"
