"""The contract between export and service: what an artifact holds, how it is written and read. Imports no torch.

    MODELS/NAME/VERSION/
      manifest.json    this module's `Manifest`
      model.onnx       or model.pt (TorchScript)
      golden.npz       a few real pictures and what the model answers to them: the service replays them at start

The model takes ``image`` ``(N, H, W, C)`` uint8 with any N, and answers with the outputs that the manifest names:
``probabilities`` ``(N, K)`` float32 and, for each transformer, theta ``(N, 2, 3)`` float32, its parameters ``(N, ...)``
float32 and the rectified image ``(N, h, w, C)`` uint8. Everything else (conversion to float, normalisation) is inside.

Theta maps output to input coordinates, normalised to [-1, 1], (x, y), ``align_corners=False``.
"""

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

FORMAT_VERSION: Final = 1
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
MODEL_FILES = {"onnx": "model.onnx", "torchscript": "model.pt"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

RuntimeName = Literal["onnx", "torchscript"]
Outputs = dict[str, NDArray[Any]]
Positive = Annotated[int, Field(gt=0)]


class ArtifactError(Exception):
    """An artifact cannot be read, written or trusted; the message says why and what to do."""


class Document(BaseModel):
    """Part of the manifest: frozen, and nothing in it is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageInput(Document):
    """The picture the model takes, and how any picture is brought to it."""

    name: str
    """Of the model's input."""
    height: Positive
    width: Positive
    channels: Literal[1, 3]
    """1: grey (ITU-R 601 luma). 3: RGB."""
    resize: Literal["bilinear"]
    """Stretched to height x width by an anti-aliased (area-aware) bilinear filter; the aspect ratio is not kept."""
    background: tuple[Annotated[int, Field(ge=0, le=255)], ...]
    """What shows through transparent pixels, a number a channel."""


class Transform(Document):
    """One spatial transformer of the model, and the names of its outputs."""

    name: str
    kind: str
    theta: str
    parameters: str
    rectified: str
    height: Positive
    """Of the rectified image, in pixels."""
    width: Positive


class Accuracy(Document):
    """How good the model is, on pictures it was not trained on."""

    dataset: str
    pictures: Positive
    accuracy: Annotated[float, Field(ge=0, le=1)]


class Parity(Document):
    """Largest difference from the PyTorch model, seen when the artifact was made."""

    probabilities: float
    parameters: float
    """Of theta and of the transformers' parameters."""
    rectified: int
    """In grey levels."""


class FileRecord(Document):
    """A file of the artifact."""

    bytes: Positive
    sha256: str


class Manifest(Document):
    """What ``manifest.json`` holds."""

    format_version: Literal[1] = FORMAT_VERSION
    created: datetime
    runtime: RuntimeName
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    input: ImageInput
    outputs: tuple[str, ...]
    """Names in the order in which the model gives them."""
    probabilities: str
    transforms: Annotated[tuple[Transform, ...], Field(min_length=1)]
    recipe: dict[str, Any]
    accuracy: Accuracy
    parity: Parity
    versions: dict[str, str]
    files: dict[str, FileRecord]

    @property
    def model_file(self) -> str:
        """Name of the file that holds the model."""
        return MODEL_FILES[self.runtime]

    @model_validator(mode="after")
    def _agree(self) -> Self:
        named = {self.probabilities}.union(*({t.theta, t.parameters, t.rectified} for t in self.transforms))
        if named != set(self.outputs):
            raise ValueError(f"outputs {sorted(self.outputs)} are not those that are described: {sorted(named)}")
        if len(self.input.background) != self.input.channels:
            raise ValueError("input.background must have one number a channel")
        if missing := {self.model_file, GOLDEN} - self.files.keys():
            raise ValueError(f"files lacks {', '.join(sorted(missing))}")
        return self


class Artifact(NamedTuple):
    """An artifact whose files are what its manifest says."""

    folder: Path
    manifest: Manifest

    @property
    def model_file(self) -> Path:
        """The file that holds the model."""
        return self.folder / self.manifest.model_file

    def golden(self) -> tuple[NDArray[np.uint8], Outputs]:
        """Pictures ``(N, H, W, C)`` and what the model answers to them, by output name.

        Raises:
            ArtifactError: the file does not hold them.
        """
        try:
            with np.load(self.folder / GOLDEN, allow_pickle=False) as arrays:
                outputs = {name: arrays[name] for name in self.manifest.outputs}
                return arrays[self.manifest.input.name], outputs
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(f"{self.folder / GOLDEN} is damaged ({error}); export the model again") from error


def pack_golden(image_name: str, images: NDArray[np.uint8], outputs: Outputs) -> bytes:
    """The content of ``golden.npz``."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **{image_name: images}, **outputs)
    return content.getvalue()


def record(content: bytes) -> FileRecord:
    """How the manifest describes a file."""
    return FileRecord(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def read_artifact(folder: Path) -> Artifact:
    """Read and check the artifact in ``folder``.

    Raises:
        ArtifactError: it is no artifact, is of a newer format, or a file is not what the manifest says.
    """
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise ArtifactError(f"cannot read {folder / MANIFEST}: {error.strerror}") from error
    except ValueError as error:
        raise ArtifactError(f"{folder / MANIFEST} is not JSON ({error}); export the model again") from error
    found = content.get("format_version") if isinstance(content, dict) else None
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise ArtifactError(
            f"{folder} has format version {found}, this version of stn-serve reads up to {FORMAT_VERSION}; "
            "upgrade stn-serve, or export the model again with this version"
        )
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "as a whole"
        raise ArtifactError(f"{folder / MANIFEST}: {where}: {first['msg']}; export the model again") from error
    for name, expected in manifest.files.items():
        check_file(folder, name, expected)
    return Artifact(folder, manifest)


def check_file(folder: Path, name: str, expected: FileRecord) -> None:
    """Raise `ArtifactError` unless the file is the one the manifest was written for."""
    file = folder / name
    if Path(name).name != name:
        raise ArtifactError(f"{folder / MANIFEST} names {name!r}, which is not a plain file name")
    try:
        found = record(file.read_bytes())
    except OSError as error:
        raise ArtifactError(f"cannot read {file} ({error.strerror}); copy the whole folder again") from error
    except ValidationError:
        raise ArtifactError(f"{file} is empty; copy the whole folder again") from None
    if found != expected:
        raise ArtifactError(f"{file} is not the file that was exported (its sha256 differs); copy it again")


def find_artifacts(models: Path) -> Iterator[tuple[str, int, Path]]:
    """Name, version and folder of everything in ``models`` that is laid out as ``NAME/VERSION``, sorted.

    Raises:
        ArtifactError: there is no such folder, or it cannot be read.
    """
    try:
        names = sorted(entry for entry in models.iterdir() if entry.is_dir() and NAME.fullmatch(entry.name))
    except OSError as error:
        raise ArtifactError(f"cannot read the models folder {models}: {error.strerror}") from error
    for folder in names:
        for version in versions(folder):
            yield folder.name, version, folder / str(version)


def versions(folder: Path) -> list[int]:
    """The versions in a model's folder, lowest first: plain positive numbers.

    Raises:
        ArtifactError: the folder cannot be read.
    """
    try:
        found = [e.name for e in folder.iterdir() if e.is_dir()] if folder.is_dir() else []
    except OSError as error:
        raise ArtifactError(f"cannot read {folder}: {error.strerror}; may this user read it?") from error
    return sorted(int(name) for name in found if re.fullmatch(r"[1-9][0-9]{0,8}", name))


def claim_version(models: Path, name: str, version: int | None, *, force: bool) -> Path:
    """The folder to write: of ``version``, or of the next one.

    Raises:
        ArtifactError: the name will not do, the version exists and is not to be replaced, or its folder cannot be read.
    """
    if not NAME.fullmatch(name):
        raise ArtifactError(f"{name!r} cannot name a model; use letters, digits, '.', '_' and '-', 64 at most")
    folder = models / name / str(version or max(versions(models / name), default=0) + 1)
    try:
        exists = folder.exists()
    except OSError as error:
        raise ArtifactError(f"cannot read {folder}: {error.strerror}; choose another --out") from error
    if exists and not force:
        raise ArtifactError(f"{folder} exists; choose another --version, leave it out for the next, or add --force")
    return folder


def write_artifact(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Put an artifact in place as a whole: written aside, then renamed; what was there before is replaced.

    Raises:
        ArtifactError: it cannot be written; nothing has changed then.
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        aside.mkdir(parents=True)
        for name, content in files.items():
            (aside / name).write_bytes(content)
        (aside / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        aside.rename(folder)
    except OSError as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise ArtifactError(f"cannot write {folder}: {error.strerror}; nothing was changed") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
