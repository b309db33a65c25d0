"""The command line: ``python -m service``."""

import signal
import socket
import sys
from collections.abc import Sequence
from types import FrameType

import uvicorn

from service import __version__
from service.app import create_app
from service.engine import Engine
from service.errors import AddressError, StartError
from service.logs import configure_logs
from service.models import Models, load_models
from service.settings import Settings, load_settings

BACKLOG = 2048


def main(arguments: Sequence[str]) -> int:
    """Serve until told to stop; what prevents that becomes one line and exit code 1."""
    try:
        settings = load_settings(arguments)
        configure_logs(settings)
        models = load_models(settings)
        listener = listen(settings)
    except StartError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the command line's answer to its user
        return 1
    Server(settings, models).run([listener])
    return 0


def listen(settings: Settings) -> socket.socket:
    """Take the address.

    Raises:
        AddressError: it is in use, not ours, or not allowed.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise AddressError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); choose another --host or --port"
        ) from error


class Server(uvicorn.Server):
    """Uvicorn that says where it listens once it does."""

    def __init__(self, settings: Settings, models: Models) -> None:
        self._models = models
        config = uvicorn.Config(
            create_app(Engine(models, settings), settings),
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=settings.grace_s,
        )
        super().__init__(config)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Answer what is under way and end, on a second Ctrl+C at once. Uvicorn's own would end as if killed."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, then print the address."""
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        served = ", ".join(f"{model.name}/{model.version} on {model.device}" for model in self._models)
        print(f"stn-serve {__version__} serves {served} at {address} (docs: {address}/docs)", flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
