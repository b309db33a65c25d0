"""Sign a model: ``python -m export.sign MODELS/NAME/VERSION --key private.pem``, by OpenSSF Model Signing."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from export.console import run_command
from export.format.artifact import MANIFEST, SIGNATURE, ArtifactError, read_artifact

PASSWORD = "SIGNING_PASSWORD"  # noqa: S105 - the name of a variable
"""Environment variable with the password of the private key."""


def sign(
    folder: Annotated[Path, typer.Argument(metavar="MODELS/NAME/VERSION", help="An artifact's folder.")],
    key: Annotated[Path, typer.Option(help=f"Private key in PEM, on an elliptic curve. Its password: {PASSWORD}.")],
) -> None:
    """Sign a version of a model: model.sig is written into its folder, and an earlier one is replaced.

    A service with --verify-key serves only models that are signed with this key.

    Examples:

      python -m export.sign models/digits/3 --key private.pem

    Exit codes: 0 success, 1 failure, 2 wrong command.
    """
    read_artifact(folder)  # or damage would be signed
    if not (folder / MANIFEST).is_file():
        raise ArtifactError(f"{folder} has no {MANIFEST}; only whole folders can be signed")
    try:
        from model_signing.hashing import Config as Hashing
        from model_signing.signing import Config as Signing
    except ImportError as error:
        raise ArtifactError(f"signing needs the package {error.name}; install stn-serve[signing]") from error
    signature = folder.absolute() / SIGNATURE
    new = folder.absolute() / f"{SIGNATURE}.new"
    hashing = Hashing().set_ignored_paths(paths=[signature, new], ignore_git_paths=False)  # type: ignore[no-untyped-call]
    try:
        password: Any = os.environ.get(PASSWORD, "").encode() or None  # declared as str, but used as bytes
        signer = Signing().use_elliptic_key_signer(  # type: ignore[no-untyped-call]
            private_key=key, password=password
        )
        signer.set_hashing_config(hashing).sign(folder.absolute(), new)
        new.replace(signature)
    except Exception as error:
        raise ArtifactError(f"cannot sign {folder} with {key}: {' '.join(str(error).split())}") from error
    finally:
        new.unlink(missing_ok=True)
    typer.echo(f"{folder / SIGNATURE} is written")


if __name__ == "__main__":
    run_command(sign, "python -m export.sign")
