"""The contract between export and service: what an artifact holds, how it is written and read. Imports no torch.

    MODELS/NAME/VERSION/
      manifest.json    `export.format.manifest`
      model.onnx       or model.pt (TorchScript), model.pt2 (torch.export)
      golden.npz       a few real pictures and the model's answers to them, which the service replays at start

The model file also contains the manifest and the golden pictures (`export.format.modelfile`), so it can be used alone.

The model takes ``image`` ``(N, H, W, C)`` uint8 with any N, and returns the outputs that the manifest names:
``probabilities`` ``(N, K)`` float32, or ``(N, T, K)`` of a sequence of T objects (or the raw outputs of a network that
is not a classifier) and, for each transformer, theta ``(N, 2, 3)`` float32, its parameters ``(N, ...)`` float32 and the
rectified image ``(N, h, w, C)`` uint8. Conversion to float and normalisation are part of the model.

Theta maps output to input coordinates, normalised to [-1, 1], (x, y), ``align_corners=False``.
"""

import ctypes
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from export.format.drift import count_in_bins, distance, make_reference, values
from export.format.errors import ArtifactError
from export.format.golden import Outputs, pack_golden, unpack_golden
from export.format.manifest import (
    MODEL_FILES,
    Distribution,
    FileRecord,
    ImageInput,
    Manifest,
    Quantity,
    Reference,
    Reliability,
    RuntimeName,
    Tensor,
    Transform,
)
from export.format.modelfile import Inside, embed, look_inside
from export.format.reading import read_manifest

__all__ = [  # the names that the service may import from this package
    "GOLDEN",
    "MANIFEST",
    "SIGNATURE",
    "Artifact",
    "ArtifactError",
    "Distribution",
    "FileRecord",
    "ImageInput",
    "Manifest",
    "Outputs",
    "Quantity",
    "Reference",
    "Reliability",
    "RuntimeName",
    "Tensor",
    "Transform",
    "check_file",
    "claim_version",
    "copy_files",
    "count_in_bins",
    "distance",
    "find_artifacts",
    "make_reference",
    "pack_golden",
    "place_of",
    "read_artifact",
    "read_bytes",
    "record",
    "seal",
    "values",
    "versions",
    "write_artifact",
    "write_files",
]

MANIFEST: Final = "manifest.json"
GOLDEN: Final = "golden.npz"
SIGNATURE: Final = "model.sig"
"""The signature of a version, as OpenSSF Model Signing writes it, over its files as ``NAME/VERSION/FILE``."""
LARGEST_MANIFEST: Final = 16 * 2**20
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
VERSION: Final = re.compile(r"[1-9][0-9]{0,8}")
RUNTIMES: Final[Mapping[str, RuntimeName]] = {".onnx": "onnx", ".pt": "torchscript", ".pt2": "program"}
"""The runtime of a single model file, by the file's extension."""
AT_FDCWD, RENAME_EXCHANGE = -100, 2


class Artifact(NamedTuple):
    """An artifact whose files match its manifest. The verified contents are kept here; no file is read again."""

    folder: Path
    """The artifact's folder, or the folder of a single model file."""
    manifest: Manifest
    model_file: Path
    """The file that contains the model."""
    model: bytes
    """Its content."""
    golden_pictures: bytes
    """The content of ``golden.npz``."""
    signer: str = ""
    """Fingerprint of the public key that verified its signature; empty if none was asked for."""

    def golden(self) -> tuple[NDArray[np.uint8], Outputs]:
        """Return the golden pictures ``(N, H, W, C)`` and the expected outputs by name.

        Raises:
            ArtifactError: the file is damaged or does not contain them.
        """
        return unpack_golden(self.golden_pictures, self.manifest, f"{GOLDEN} of {self.folder}")


def record(content: bytes) -> FileRecord:
    """Return the manifest's entry for a file with this content."""
    return FileRecord(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def seal(manifest: Manifest, model: bytes, golden: bytes) -> tuple[Manifest, dict[str, bytes]]:
    """Return the finished manifest and the artifact's files; the ``files`` of the given manifest are ignored."""
    inside = manifest.model_copy(update={"files": {GOLDEN: record(golden)}})
    sealed = embed(manifest.runtime, model, Inside(inside.model_dump_json().encode(), golden))
    files = {manifest.model_file: sealed, GOLDEN: golden}
    return manifest.model_copy(update={"files": {name: record(body) for name, body in files.items()}}), files


def read_artifact(place: Path) -> Artifact:
    """Read and verify an artifact: a folder, a single model file, or a folder with nothing but a model file.

    Raises:
        ArtifactError: it is not an artifact, has a newer format, or a file does not match the manifest.
    """
    if place.is_file():
        return read_model_file(place)
    if not (place / MANIFEST).exists():
        alone = [place / name for name in MODEL_FILES.values() if (place / name).is_file()]
        if len(alone) == 1:
            return read_model_file(alone[0])
    manifest = read_manifest(read_bytes(place / MANIFEST, LARGEST_MANIFEST), str(place / MANIFEST))
    if missing := {manifest.model_file, GOLDEN} - manifest.files.keys():
        raise ArtifactError(f"{place / MANIFEST} does not list {', '.join(sorted(missing))}; export the model again")
    files = {name: check_file(place, name, expected) for name, expected in manifest.files.items()}
    model_file = place / manifest.model_file
    model = files[manifest.model_file]
    inside = look_inside(manifest.runtime, model, str(model_file))
    if inside.manifest and read_manifest(inside.manifest, f"the manifest in {model_file}") != manifest.inside:
        raise ArtifactError(
            f"{place / MANIFEST} is not the manifest that {manifest.model_file} was exported with; copy the whole "
            f"folder again, or delete {MANIFEST} to use the copy inside {manifest.model_file}"
        )
    return Artifact(place, manifest, model_file, model, files[GOLDEN])


def read_model_file(file: Path) -> Artifact:
    """Read a model file on its own; it contains its manifest and golden pictures.

    Raises:
        ArtifactError: it contains no manifest or golden pictures, or is damaged.
    """
    runtime = RUNTIMES.get(file.suffix)
    if runtime is None:
        raise ArtifactError(f"{file} is not a model file; model files end with {', '.join(RUNTIMES)}")
    content = read_bytes(file)
    inside = look_inside(runtime, content, str(file))
    if inside.manifest is None or inside.golden is None:
        raise ArtifactError(
            f"{file} contains no manifest: another program or an older version of stn-serve made it; "
            "use the whole folder with its manifest.json, or export the model again"
        )
    source = f"the manifest in {file}"
    manifest = read_manifest(inside.manifest, source)
    if manifest.runtime != runtime or manifest.files != {GOLDEN: record(inside.golden)}:
        raise ArtifactError(f"{source} does not describe this file; export the model again")
    whole = manifest.model_copy(update={"files": {manifest.model_file: record(content), **manifest.files}})
    return Artifact(file.parent, whole, file, content, inside.golden)


def check_file(folder: Path, name: str, expected: FileRecord) -> bytes:
    """Return the content of a file that the manifest lists, after comparing size and checksum.

    Raises:
        ArtifactError: it is a different file, or cannot be read.
    """
    if Path(name).name != name:
        raise ArtifactError(f"{folder / MANIFEST} names {name!r}, which is not a plain file name; do not trust it")
    content = read_bytes(folder / name, expected.bytes)
    if len(content) < expected.bytes:
        raise ArtifactError(
            f"{folder / name} is cut off after {len(content):,} of {expected.bytes:,} bytes; copy it again"
        )
    if hashlib.sha256(content).hexdigest() != expected.sha256:
        raise ArtifactError(f"{folder / name} is not the file that was exported (its sha256 differs); copy it again")
    return content


def read_bytes(file: Path, most: int | None = None) -> bytes:
    """Return the content of a regular file of at most ``most`` bytes.

    FIFOs, devices and sockets are not opened, because that could block forever. A file that grows is rejected.

    Raises:
        ArtifactError: it cannot be read, is not a regular file, is too large, or grew while it was read.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise ArtifactError(f"{file} is not a regular file; replace it with the file itself")
        with open(file, "rb", opener=open_without_waiting) as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ArtifactError(f"{file} is not a regular file; replace it with the file itself")
            if most is not None and found.st_size > most:
                raise ArtifactError(f"{file} is larger than the expected {most:,} bytes; copy it again")
            content = stream.read(found.st_size + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ArtifactError(f"cannot read {file} ({reason}); copy the whole folder again") from error
    if len(content) > found.st_size:
        raise ArtifactError(f"{file} grew while it was read; load it again when the copy is complete")
    return content


def open_without_waiting(path: str, flags: int) -> int:
    """Open a file without waiting for a writer, in case a FIFO has taken its place."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def find_artifacts(
    models: Path, on_error: Callable[[str, ArtifactError], None] | None = None
) -> Iterator[tuple[str, int, Path]]:
    """Yield name, version and folder of every ``NAME/VERSION`` folder in ``models``, sorted.

    ``models`` may also be a single model file, which is version 1 of a model named after the file. A model whose
    folder cannot be read is passed to ``on_error`` and skipped; without ``on_error``, the error is raised.

    Raises:
        ArtifactError: the folder does not exist or cannot be read.
    """
    try:
        alone = models.is_file()
        names = [] if alone else sorted(entry for entry in models.iterdir() if NAME.fullmatch(entry.name))
        folders = [entry for entry in names if entry.is_dir()]
    except OSError as error:
        raise ArtifactError(f"cannot read the models folder {models}: {error.strerror}") from error
    if alone:
        yield models.stem if NAME.fullmatch(models.stem) else "model", 1, models
    for folder in folders:
        try:
            found = versions(folder)
        except ArtifactError as error:
            if on_error is None:
                raise
            on_error(folder.name, error)
        else:
            for version in found:
                yield folder.name, version, folder / str(version)


def versions(folder: Path) -> list[int]:
    """Return the versions in a model's folder, lowest first. Versions are positive integers.

    Raises:
        ArtifactError: the folder cannot be read.
    """
    try:
        found = [e.name for e in folder.iterdir() if e.is_dir()] if folder.is_dir() else []
    except OSError as error:
        raise ArtifactError(f"cannot read {folder}: {error.strerror}; check its permissions") from error
    return sorted(int(name) for name in found if VERSION.fullmatch(name))


def place_of(folder: Path) -> tuple[str, int]:
    """Return the name and the version that a folder ``NAME/VERSION`` states.

    Raises:
        ArtifactError: it states none.
    """
    name, version = folder.absolute().parts[-2:]
    if not NAME.fullmatch(name) or not VERSION.fullmatch(version):
        raise ArtifactError(f"{folder} is not NAME/VERSION, as in digits/3, so no service would find it; rename it")
    return name, int(version)


def copy_files(folder: Path, to: Path) -> None:
    """Copy the files of an artifact, and its signature if it has one, to a new folder.

    Raises:
        ArtifactError: something is not a regular file, or cannot be read.
    """
    try:
        to.mkdir(parents=True)
        for file in folder.iterdir():
            if not file.is_file() or file.is_symlink():
                raise ArtifactError(f"{file} is not a regular file, so no signature can cover it; remove it")
            shutil.copyfile(file, to / file.name)
    except OSError as error:
        raise ArtifactError(f"cannot copy {folder} ({error}); copy the whole folder again") from error


def claim_version(models: Path, name: str, version: int | None, *, force: bool) -> Path:
    """Return the folder to write: that of ``version``, or of the next free version.

    Raises:
        ArtifactError: the name is invalid, the version exists and ``force`` is not set, or the folder is unreadable.
    """
    if not NAME.fullmatch(name):
        raise ArtifactError(f"{name!r} is not a valid model name; use at most 64 letters, digits, '.', '_' and '-'")
    folder = models / name / str(version or max(versions(models / name), default=0) + 1)
    try:
        exists = folder.exists()
    except OSError as error:
        raise ArtifactError(f"cannot read {folder}: {error.strerror}; choose another --out") from error
    if exists and not force:
        raise ArtifactError(f"{folder} exists; choose another --version, omit it for the next one, or add --force")
    return folder


def write_artifact(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Write an artifact, replacing any earlier one whole; see `write_files`."""
    write_files(folder, {**files, MANIFEST: (manifest.model_dump_json(indent=2) + "\n").encode()})


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of an artifact to a temporary folder and rename it, replacing any earlier artifact.

    On Linux the two folders are exchanged atomically, so an interruption leaves either the old version or the new one.
    Elsewhere two renames are needed; an interruption between them leaves the old version complete but hidden.

    Raises:
        ArtifactError: it cannot be written; nothing was changed.
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        aside.mkdir(parents=True)
        for name, content in files.items():
            write_through(aside / name, content)
        if folder.exists() and not exchange(aside, folder):
            folder.rename(old)
        if not folder.exists():
            aside.rename(folder)
    except OSError as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise ArtifactError(f"cannot write {folder}: {error.strerror}; nothing was changed") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_through(file: Path, content: bytes) -> None:
    """Write ``file`` and flush it to the disk, so that a power cut after the rename does not leave it empty."""
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def exchange(one: Path, other: Path) -> bool:
    """Exchange two folders atomically; return False where the system or file system does not support it."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    return bool(rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0)
