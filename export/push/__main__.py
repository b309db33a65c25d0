"""Copy a model to a URL: ``python -m export.push MODELS/NAME[/VERSION] URL``."""

from pathlib import Path
from typing import Annotated

import typer

from export.console import run_command
from export.format.artifact import (
    GOLDEN,
    MANIFEST,
    SIGNATURE,
    ArtifactError,
    check_file,
    place_of,
    read_artifact,
    read_bytes,
    versions,
)
from export.format.reading import read_manifest
from export.format.remote import LARGEST_SIGNATURE, RemoteModels


def push(
    model: Annotated[Path, typer.Argument(metavar="MODELS/NAME[/VERSION]", help="A version, or all of them.")],
    url: Annotated[str, typer.Argument(metavar="URL", help="The models folder there, as in s3://bucket/models.")],
    force: Annotated[bool, typer.Option("--force", help="Replace versions that are there and differ.")] = False,
) -> None:
    """Copy one version of a model, or all of them, to a URL that fsspec can write, with their signatures.

    Each version is verified before, and read again afterwards. A service with --models URL takes it from there.

    Examples:

      python -m export.push models/digits/3 s3://bucket/models

      python -m export.push models/digits hf://me/digits

    Exit codes: 0 success, 1 failure, 2 wrong command.
    """
    if (model / "run.json").is_file():
        raise ArtifactError(f"{model} is a run; export it first (python -m export.onnx {model}), and push its folder")
    folders = [model] if model.name.isdecimal() else [model / str(version) for version in versions(model)]
    if not folders:
        raise ArtifactError(f"{model} has no versions; name MODELS/NAME or MODELS/NAME/VERSION")
    remote = RemoteModels(url)
    there = remote.versions()
    for folder in folders:
        name, version = place_of(folder)
        artifact = read_artifact(folder)
        head = {MANIFEST: read_bytes(folder / MANIFEST)}
        if read_manifest(head[MANIFEST], str(folder / MANIFEST)) != artifact.manifest:
            raise ArtifactError(f"{folder / MANIFEST} has changed meanwhile; push it again")
        if (folder / SIGNATURE).exists():
            head[SIGNATURE] = read_bytes(folder / SIGNATURE, LARGEST_SIGNATURE)
        files = {artifact.manifest.model_file: artifact.model, GOLDEN: artifact.golden_pictures}
        others = artifact.manifest.files.keys() - files.keys()
        files |= {file: check_file(folder, file, artifact.manifest.files[file]) for file in others}
        if (name, version) in there:
            if remote.head(there[name, version]) == head:
                typer.echo(f"{name}/{version} is at {remote.url} already")
                continue
            if not force:
                raise ArtifactError(f"{name}/{version} at {remote.url} differs; export a new version, or add --force")
        remote.write(name, version, files | head)
        typer.echo(f"{name}/{version} is at {remote.url}")


if __name__ == "__main__":
    run_command(push, "python -m export.push")
