"""Reads artifacts, and only those that are signed if the settings name a key: OpenSSF Model Signing.

A signed version has ``model.sig``, a Sigstore bundle over the checksums of all of its files. ``python -m export.sign``
writes it.
"""

import hashlib
import shutil
import tempfile
from pathlib import Path

from export.format.artifact import MANIFEST, SIGNATURE, Artifact, ArtifactError, read_artifact
from service.errors import SettingsError
from service.settings import Settings


def read_trusted(folder: Path, settings: Settings) -> Artifact:
    """Read an artifact and verify it, with its signature if there is a `verify_key`.

    The signature is verified on a private copy, from which the artifact is then read, so that nobody can exchange a
    file in between.

    Raises:
        ArtifactError: it is damaged, not signed, or not signed with the key.
        SettingsError: the key cannot be read.
    """
    if not settings.verify_key:
        return read_artifact(folder)
    if not (folder / MANIFEST).is_file() or not (folder / SIGNATURE).is_file():
        raise ArtifactError(f"{folder} is not signed ({SIGNATURE} is missing); sign it with python -m export.sign")
    with tempfile.TemporaryDirectory(prefix="stn-") as private:
        copy = Path(private, folder.name)
        copy.mkdir()
        try:
            for file in folder.iterdir():
                if not file.is_file() or file.is_symlink():
                    raise ArtifactError(f"{file} is not a regular file, so its signature cannot be verified; remove it")
                shutil.copyfile(file, copy / file.name)
        except OSError as error:
            raise ArtifactError(f"cannot read {folder} ({error}); copy the whole folder again") from error
        signer = verify(copy, Path(settings.verify_key), str(folder))
        artifact = read_artifact(copy)
    return artifact._replace(folder=folder, model_file=folder / artifact.model_file.name, signer=signer)


def verify(folder: Path, key: Path, name: str) -> str:
    """Verify the signature of an artifact and return the `fingerprint` of the key; errors refer to it as ``name``.

    Raises:
        ArtifactError: its files are not those that were signed with the key.
        SettingsError: the key is missing or of another kind, or the package that verifies is.
    """
    signer = fingerprint(key)
    try:
        from model_signing.hashing import Config as Hashing
        from model_signing.verifying import Config as Verifying
    except ImportError as error:
        raise SettingsError(f"verify_key needs the package {error.name}; install stn-serve[signing]") from error
    signature = folder / SIGNATURE
    hashing = Hashing().set_ignored_paths(paths=[signature], ignore_git_paths=False)  # type: ignore[no-untyped-call]
    try:
        verifier = Verifying().use_elliptic_key_verifier(public_key=key)  # type: ignore[no-untyped-call]
        verifier.set_hashing_config(hashing).verify(folder, signature)
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ArtifactError(f"{name} is not what the key {key} has signed ({reason}); do not trust it") from error
    return signer


def fingerprint(key: Path) -> str:
    """Return the SHA-256 of a public key in DER, as ``openssl pkey -pubin -outform DER | sha256sum`` gives it.

    Raises:
        SettingsError: it cannot be read, is not a public key on an elliptic curve, or a package is missing.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            PublicFormat,
            load_pem_public_key,
        )
    except ImportError as error:
        raise SettingsError(f"verify_key needs the package {error.name}; install stn-serve[signing]") from error
    try:
        found = load_pem_public_key(key.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError(f"verify_key {key} cannot be read ({error}); name a public key in PEM") from error
    if not isinstance(found, EllipticCurvePublicKey):
        raise SettingsError(f"verify_key {key} is not a public key on an elliptic curve; see docs/operate/remote.md")
    content = found.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(content).hexdigest()
