"""Copy models from a URL: ``python -m export.pull URL``."""

from pathlib import Path
from typing import Annotated

import typer

from export.console import run_command
from export.format.artifact import ArtifactError, write_files
from export.format.remote import RemoteModels


def pull(
    url: Annotated[str, typer.Argument(metavar="URL", help="The models folder there, laid out as NAME/VERSION.")],
    model: Annotated[str, typer.Option(metavar="NAME[/VERSION]", help="Copy these only.  [default: all]")] = "",
    out: Annotated[Path, typer.Option(help="Folder of the models here.")] = Path("models"),
    force: Annotated[bool, typer.Option("--force", help="Replace versions that are here and differ.")] = False,
) -> None:
    """Copy models from a URL that fsspec can read. Each version is verified, and written whole or not at all.

    Examples:

      python -m export.pull s3://bucket/models

      python -m export.pull https://example.org/models --model digits/3

    Exit codes: 0 success, 1 failure, 2 wrong command.
    """
    remote = RemoteModels(url)
    there = remote.versions()
    chosen = {key: files for key, files in there.items() if not model or model in (key[0], f"{key[0]}/{key[1]}")}
    if not chosen:
        found = ", ".join(f"{name}/{version}" for name, version in there) or "no models"
        raise ArtifactError(f"there is no {model or 'model'} at {remote.url}; it has {found}")
    for (name, version), files in chosen.items():
        folder, head = out / name / str(version), remote.head(files)
        if folder.exists():
            if all((folder / file).is_file() and (folder / file).read_bytes() == head[file] for file in head):
                typer.echo(f"{folder} is up to date")
                continue
            if not force:
                raise ArtifactError(f"{folder} exists and differs; choose another --out, or add --force")
        write_files(folder, remote.rest(files, head) | head)
        typer.echo(f"{folder} is written")


if __name__ == "__main__":
    run_command(pull, "python -m export.pull")
