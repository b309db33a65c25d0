"""gRPC over TLS, with Triton's client."""

import datetime
import ipaddress
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import tritonclient.grpc as triton
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from tritonclient.utils import InferenceServerException

from service.errors import SettingsError
from service.server.listening import check_grpc
from service.settings import Settings
from tests.conftest import REPOSITORY, start_service, wait_until
from tests.service.artifacts import write
from tests.service.grpc.test_tritonclient import files, labels


class Authority:
    """Issues certificates, and writes them to ``folder``."""

    def __init__(self, folder: Path, name: str, curve: ec.EllipticCurve | None = None) -> None:
        self.folder = folder
        self._curve = curve or ec.SECP256R1()
        self._key = ec.generate_private_key(self._curve)
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = self._write(f"{name}.pem", self._sign(self._name, self._key, is_authority=True))

    def issue(self, name: str) -> dict[str, str]:
        """A certificate for this machine and its private key, as arguments of Triton's client."""
        key = ec.generate_private_key(self._curve)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return {
            "private_key": self._write(f"{name}.key", private),
            "certificate_chain": self._write(f"{name}.crt", self._sign(subject, key, is_authority=False)),
        }

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool) -> bytes:
        now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
        made = x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
        made = made.not_valid_before(now - day).not_valid_after(now + day)
        made = made.add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        made = made.add_extension(x509.SubjectAlternativeName([here]), critical=False)
        return made.sign(self._key, SHA256()).public_bytes(Encoding.PEM)

    def _write(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return str(self.folder / name)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"), "authority")


@pytest.fixture(scope="module")
def own(authority: Authority) -> dict[str, str]:
    """The certificate of the service."""
    return authority.issue("service")


@pytest.fixture(scope="module")
def address(authority: Authority, own: dict[str, str]) -> Iterator[str]:
    """Of a service that asks clients for certificates."""
    certificate = ("--grpc-certificate", own["certificate_chain"], "--grpc-private-key", own["private_key"])
    with start_service("--grpc-port", 0, *certificate, "--grpc-client-authority", authority.file) as service:
        wait_until(lambda: "grpc_listens" in service.log())
        found = re.search(r'"address": "([^"]+)"', service.log())
        assert found is not None
        yield found[1]


def test_a_client_with_a_certificate_is_answered(address: str, authority: Authority) -> None:
    client = authority.issue("client")
    with triton.InferenceServerClient(address, ssl=True, root_certificates=authority.file, **client) as connected:
        best = triton.InferRequestedOutput("probabilities", class_count=1)
        assert labels(connected.infer("digits", files(), outputs=[best])) == ["7", "2", "1", "0"]


def test_others_are_refused(address: str, authority: Authority, tmp_path: Path) -> None:
    foreign = Authority(tmp_path, "foreign")
    trusting: dict[str, Any] = {"ssl": True, "root_certificates": authority.file}
    for options in (trusting, trusting | foreign.issue("stranger"), {"ssl": True, "root_certificates": foreign.file}):
        with triton.InferenceServerClient(address, **options) as connected:
            with pytest.raises(InferenceServerException) as refusal:
                connected.is_server_live(client_timeout=10)
            assert refusal.value.status() == "StatusCode.UNAVAILABLE"
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.FutureTimeoutError):
        grpc.channel_ready_future(channel).result(1)


def encrypted(folder: Path) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    file = folder / "encrypted.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    return str(file)


def test_files_that_cannot_be_used_are_named_at_the_start(
    authority: Authority, own: dict[str, str], tmp_path: Path
) -> None:
    certificate, key = own["certificate_chain"], own["private_key"]
    other = authority.issue("other")["private_key"]
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    for given, says in (
        ((certificate, "", ""), "name both files"),
        (("", "", authority.file), "name both files"),
        ((str(tmp_path / "none.pem"), key, ""), r"none\.pem cannot be read"),
        ((certificate, other, ""), "key values mismatch"),
        ((certificate, encrypted(tmp_path), ""), "without a password"),
        ((str(nonsense), key, ""), r"nonsense\.pem and .* cannot be used"),
        ((certificate, key, str(nonsense)), "--grpc-client-authority .* cannot be used"),
    ):
        names = ("grpc_certificate", "grpc_private_key", "grpc_client_authority")
        with pytest.raises(SettingsError, match=says):
            check_grpc(Settings.model_validate({"grpc_port": 0} | dict(zip(names, given, strict=True))))


def test_a_certificate_that_grpc_cannot_use_is_blamed_with_the_port(tmp_path: Path) -> None:
    own = Authority(tmp_path, "authority", ec.BrainpoolP256R1()).issue("service")
    write(tmp_path / "models" / "digits" / "1")
    flags = ["--port", "0", "--models", str(tmp_path / "models"), "--grpc-port", "0"]
    flags += ["--grpc-certificate", own["certificate_chain"], "--grpc-private-key", own["private_key"]]
    command = [sys.executable, "-m", "service", *flags]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode
    assert "another --grpc-port, or another --grpc-certificate: its key must be RSA, P-256 or P-384" in done.stderr


@pytest.mark.parametrize("name", ["grpc_certificate", "grpc_private_key", "grpc_client_authority"])
def test_files_without_a_port_for_grpc_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="needs --grpc-port; add it"):
        check_grpc(Settings.model_validate({name: "file.pem"}))
