"""Sign a model: ``python -m export.sign MODELS/NAME/VERSION --key private.pem``, by OpenSSF Model Signing."""

import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from export.console import run_command
from export.format.artifact import MANIFEST, SIGNATURE, ArtifactError, copy_files, place_of, read_artifact

PASSWORD = "SIGNING_PASSWORD"  # noqa: S105 - the name of a variable
"""Environment variable with the password of the private key."""


def sign(
    folder: Annotated[Path, typer.Argument(metavar="MODELS/NAME/VERSION", help="An artifact's folder.")],
    key: Annotated[Path, typer.Option(help=f"Private key in PEM, on an elliptic curve. Its password: {PASSWORD}.")],
) -> None:
    """Sign a version of a model: model.sig is written into its folder, and an earlier one is replaced.

    A service with --verify-key serves only models that are signed with this key, under the name and the version that
    their folder has now.

    Examples:

      python -m export.sign models/digits/3 --key private.pem

    Exit codes: 0 success, 1 failure, 2 wrong command.
    """
    if not (folder / MANIFEST).is_file():
        raise ArtifactError(f"{folder} has no {MANIFEST}; only whole folders can be signed")
    try:
        from model_signing.hashing import Config as Hashing
        from model_signing.signing import Config as Signing
    except ImportError as error:
        raise ArtifactError(f"signing needs the package {error.name}; pip install 'stn-serve[signing]'") from error
    name, version = place_of(folder)
    new = folder / f"{SIGNATURE}.new"
    hashing = Hashing().set_ignored_paths(paths=[], ignore_git_paths=False)  # type: ignore[no-untyped-call]
    try:
        with tempfile.TemporaryDirectory(prefix="stn-") as private:
            models = Path(private, name)
            copy = models / name / str(version)  # the paths in the signature begin with name and version
            copy_files(folder, copy)
            (copy / SIGNATURE).unlink(missing_ok=True)
            read_artifact(copy)  # or damage would be signed
            password: Any = os.environ.get(PASSWORD, "").encode() or None  # declared as str, but used as bytes
            signer = Signing().use_elliptic_key_signer(  # type: ignore[no-untyped-call]
                private_key=key, password=password
            )
            signer.set_hashing_config(hashing).sign(models, new)
            new.replace(folder / SIGNATURE)
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError(f"cannot sign {folder} with {key}: {' '.join(str(error).split())}") from error
    finally:
        new.unlink(missing_ok=True)
    typer.echo(f"{folder / SIGNATURE} is written, for {name}/{version}")


if __name__ == "__main__":
    run_command(sign, "python -m export.sign")
