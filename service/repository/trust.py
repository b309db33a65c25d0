"""Reads artifacts, and only those that are signed if the settings name a key: OpenSSF Model Signing.

A signed version has ``model.sig``, a Sigstore bundle over the checksums of all of its files and their paths in the
models folder, which begin with its name and version. ``python -m export.sign`` writes it.
"""

import base64
import hashlib
import json
import tempfile
from contextlib import suppress
from pathlib import Path

from export.format.artifact import (
    MANIFEST,
    NAME,
    SIGNATURE,
    VERSION,
    Artifact,
    ArtifactError,
    copy_files,
    read_artifact,
)
from service.errors import SettingsError
from service.settings import Settings


def read_trusted(folder: Path, name: str, version: int, settings: Settings) -> Artifact:
    """Read an artifact and verify it, with its signature as ``name`` and ``version`` if there is a `verify_key`.

    The signature is verified on a private copy, from which the artifact is then read, so that nobody can exchange a
    file in between.

    Raises:
        ArtifactError: it is damaged, not signed, not signed with the key, or signed as another model or version.
        SettingsError: the key cannot be read.
    """
    if not settings.verify_key:
        return read_artifact(folder)
    if not (folder / MANIFEST).is_file() or not (folder / SIGNATURE).is_file():
        raise ArtifactError(f"{folder} is not signed ({SIGNATURE} is missing); sign it with python -m export.sign")
    with tempfile.TemporaryDirectory(prefix="stn-") as private:
        models, signature = Path(private, "models"), Path(private, SIGNATURE)
        copy = models / name / str(version)
        copy_files(folder, copy)
        (copy / SIGNATURE).rename(signature)
        signer = verify(models, signature, Path(settings.verify_key), f"{name}/{version}", folder)
        artifact = read_artifact(copy)
    return artifact._replace(folder=folder, model_file=folder / artifact.model_file.name, signer=signer)


def verify(models: Path, signature: Path, key: Path, place: str, folder: Path) -> str:
    """Verify a signature of all files in ``models`` and return the `fingerprint` of the key.

    Errors state ``place``, the NAME/VERSION that must be signed, and ``folder``, where it comes from.

    Raises:
        ArtifactError: its files, with their paths, are not those that were signed with the key.
        SettingsError: the key is missing or of another kind, or the package that verifies is.
    """
    signer = fingerprint(key)
    try:
        from model_signing.hashing import Config as Hashing
        from model_signing.verifying import Config as Verifying
    except ImportError as error:
        raise SettingsError(f"verify_key needs the package {error.name}; pip install 'stn-serve[signing]'") from error
    hashing = Hashing().set_ignored_paths(paths=[], ignore_git_paths=False)  # type: ignore[no-untyped-call]
    try:
        verifier = Verifying().use_elliptic_key_verifier(public_key=key)  # type: ignore[no-untyped-call]
        verifier.set_hashing_config(hashing).verify(models, signature)
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ArtifactError(
            f"{place} in {folder} is not what the key {key} has signed ({reason}); {cure(signature, place)}"
        ) from error
    return signer


def cure(signature: Path, place: str) -> str:
    """What to do about a signature that does not hold for ``place``.

    What it states is not proven, so it only helps to see why, and is repeated only if it is another NAME/VERSION.
    """
    places = set()
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        statement = json.loads(base64.b64decode(json.loads(signature.read_bytes())["dsseEnvelope"]["payload"]))
        places = {str(file["name"]).rpartition("/")[0] for file in statement["predicate"]["resources"]}
    if places == {""}:
        return "it was signed without its name and version; sign it again with python -m export.sign"
    stated = places.pop() if len(places) == 1 else ""
    name, _, version = stated.partition("/")
    if stated != place and NAME.fullmatch(name) and VERSION.fullmatch(version):
        return f"do not trust it unless it was signed as {stated} and moved; then move it back"
    return "do not trust it"


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
        raise SettingsError(f"verify_key needs the package {error.name}; pip install 'stn-serve[signing]'") from error
    try:
        found = load_pem_public_key(key.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError(f"verify_key {key} cannot be read ({error}); name a public key in PEM") from error
    if not isinstance(found, EllipticCurvePublicKey):
        raise SettingsError(f"verify_key {key} is not a public key on an elliptic curve; see docs/operate/remote.md")
    content = found.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(content).hexdigest()
