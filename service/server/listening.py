"""The address that the service listens on."""

import ipaddress
import socket
from importlib.util import find_spec

from service.errors import AddressError, SettingsError
from service.grpc.tls import read_tls
from service.settings import Settings

BACKLOG = 2048
GRPC_PACKAGES = ("grpc", "grpc_health", "grpc_reflection")
ACCEPTED_A_TURN = 8
"""Connections that are accepted in a turn of the event loop; one would take seconds for hundreds."""


def listen(settings: Settings) -> socket.socket:
    """Bind the address; ``::`` takes IPv4 as well, where the platform can.

    Raises:
        AddressError: the address is in use, not ours, or not allowed.
    """
    host, port = settings.host, settings.port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        is_dual = is_any_ipv6(host) and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=is_dual)
    except OSError as error:
        raise AddressError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another --host or --port"
        ) from error


def check_grpc(settings: Settings) -> None:
    """Check the port for gRPC, which is bound later, by each worker, and its certificate.

    Raises:
        SettingsError: gRPC is not installed, several workers would take a free port each, or the certificate cannot be
            used, or has no port.
        AddressError: the port is in use or not allowed.
    """
    host, port = settings.host, settings.grpc_port
    if port < 0:
        if settings.grpc_certificate or settings.grpc_private_key or settings.grpc_client_authority:
            raise SettingsError("a certificate, key or authority for gRPC needs --grpc-port; add it")
        return
    if any(find_spec(package) is None for package in GRPC_PACKAGES):
        raise SettingsError("--grpc-port needs gRPC; install it with: pip install 'stn-serve[grpc]'")
    if settings.workers > 1 and not port:
        raise SettingsError("--grpc-port 0 is for one worker; with several, choose a port")
    if port and port == settings.port:
        raise SettingsError(f"--grpc-port {port} is that of HTTP; choose another one")
    read_tls(settings)
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise AddressError(
            f"cannot listen on {host}:{port} ({error.strerror}) for gRPC; choose another --host or --grpc-port"
        ) from error


def url_of(listener: socket.socket) -> str:
    """The URL at which this machine reaches ``listener``: a wildcard address is written as it was given."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_any_ipv6(host: str) -> bool:
    """Whether ``host`` is the IPv6 wildcard, however it is written."""
    try:
        return ipaddress.ip_address(host) == ipaddress.IPv6Address("::")
    except ValueError:
        return False


def copies(listener: socket.socket) -> list[socket.socket]:
    """``listener`` as often as connections are to be accepted in a turn: uvloop accepts one from each socket.

    All workers share the socket, and whether it blocks. A copy of a blocking one would make it block for the others.
    """
    listener.setblocking(False)
    return [listener, *(listener.dup() for _ in range(ACCEPTED_A_TURN - 1))]
