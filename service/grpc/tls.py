"""The certificate with which gRPC is encrypted, and the authority whose certificates clients must have."""

import ssl
from pathlib import Path
from typing import NamedTuple

from service.errors import SettingsError
from service.settings import Settings


class Tls(NamedTuple):
    """The contents of PEM files."""

    certificate: bytes
    private_key: bytes
    client_authority: bytes | None
    """None if clients need no certificate."""


def read_tls(settings: Settings) -> Tls | None:
    """Read the files that the settings name; None if they name no certificate.

    gRPC itself starts with files that do not fit together, and then fails each connection.

    Raises:
        SettingsError: a file is missing, cannot be read, is not in PEM, or does not fit the others.
    """
    certificate, key = settings.grpc_certificate, settings.grpc_private_key
    authority = settings.grpc_client_authority
    if not certificate and not key and not authority:
        return None
    if not certificate or not key:
        raise SettingsError("TLS for gRPC needs both --grpc-certificate and --grpc-private-key; name both files")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    contents = [read(file) for file in (certificate, key, authority) if file]
    try:
        context.load_cert_chain(certificate, key, password="")  # or it would ask for a password
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"--grpc-certificate {certificate} and --grpc-private-key {key} cannot be used ({describe(error)}); name a"
            " certificate chain in PEM, and its private key without a password"
        ) from error
    if authority:
        try:
            context.load_verify_locations(authority)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"--grpc-client-authority {authority} cannot be used ({describe(error)}); name certificates in PEM"
            ) from error
    return Tls(contents[0], contents[1], contents[2] if authority else None)


def read(file: str) -> bytes:
    """Read a file.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{file} cannot be read ({error.strerror}); correct the settings of TLS for gRPC"
        ) from error


def describe(error: Exception) -> str:
    """Describe an error of the library in a few words."""
    return error.reason.replace("_", " ").lower() if isinstance(error, ssl.SSLError) and error.reason else str(error)
