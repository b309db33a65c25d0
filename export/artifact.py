"""The contract between export and service: what an artifact holds, how it is written and read. Imports no torch.

    MODELS/NAME/VERSION/
      manifest.json    `export.manifest`
      model.onnx       or model.pt (TorchScript), model.pt2 (torch.export)
      golden.npz       a few real pictures and what the model answers to them: the service replays them at start

The model file holds the manifest and the golden pictures once more (`export.modelfile`), so that it is enough alone.

The model takes ``image`` ``(N, H, W, C)`` uint8 with any N, and answers with the outputs that the manifest names:
``probabilities`` ``(N, K)`` float32 and, for each transformer, theta ``(N, 2, 3)`` float32, its parameters ``(N, ...)``
float32 and the rectified image ``(N, h, w, C)`` uint8. Everything else (conversion to float, normalisation) is inside.

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

from export.drift import count_in_bins, distance, values
from export.errors import ArtifactError
from export.golden import Outputs, pack_golden, unpack_golden
from export.manifest import (
    MODEL_FILES,
    Distribution,
    FileRecord,
    ImageInput,
    Manifest,
    Reference,
    RuntimeName,
    Tensor,
    Transform,
    read_manifest,
)
from export.modelfile import Inside, embed, look_inside

__all__ = [  # what the service may know of this package
    "GOLDEN",
    "MANIFEST",
    "Artifact",
    "ArtifactError",
    "Distribution",
    "FileRecord",
    "ImageInput",
    "Manifest",
    "Outputs",
    "Reference",
    "RuntimeName",
    "Tensor",
    "Transform",
    "check_file",
    "claim_version",
    "count_in_bins",
    "distance",
    "find_artifacts",
    "pack_golden",
    "read_artifact",
    "read_bytes",
    "record",
    "seal",
    "values",
    "versions",
    "write_artifact",
]

MANIFEST: Final = "manifest.json"
GOLDEN: Final = "golden.npz"
LARGEST_MANIFEST: Final = 16 * 2**20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
RUNTIMES: Final[Mapping[str, RuntimeName]] = {".onnx": "onnx", ".pt": "torchscript", ".pt2": "program"}
"""Of a lone model file, by how its name ends."""
AT_FDCWD, RENAME_EXCHANGE = -100, 2


class Artifact(NamedTuple):
    """An artifact whose files are what its manifest says; what was checked is held here, and no file is read again."""

    folder: Path
    """Where it lies; of a lone model file, the folder of that."""
    manifest: Manifest
    model_file: Path
    """The file that holds the model."""
    model: bytes
    """Its content."""
    golden_pictures: bytes
    """The content of ``golden.npz``."""

    def golden(self) -> tuple[NDArray[np.uint8], Outputs]:
        """Pictures ``(N, H, W, C)`` and what the model answers to them, by output name.

        Raises:
            ArtifactError: the file does not hold them.
        """
        return unpack_golden(self.golden_pictures, self.manifest, f"{GOLDEN} of {self.folder}")


def record(content: bytes) -> FileRecord:
    """How the manifest describes a file."""
    return FileRecord(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def seal(manifest: Manifest, model: bytes, golden: bytes) -> tuple[Manifest, dict[str, bytes]]:
    """The finished manifest and the files of an artifact, from a ``manifest`` whose ``files`` do not matter yet."""
    inside = manifest.model_copy(update={"files": {GOLDEN: record(golden)}})
    sealed = embed(manifest.runtime, model, Inside(inside.model_dump_json().encode(), golden))
    files = {manifest.model_file: sealed, GOLDEN: golden}
    return manifest.model_copy(update={"files": {name: record(body) for name, body in files.items()}}), files


def read_artifact(place: Path) -> Artifact:
    """Read and check the artifact in the folder ``place``, or the lone model file that ``place`` is or holds.

    Raises:
        ArtifactError: it is no artifact, is of a newer format, or a file is not what the manifest says.
    """
    if place.is_file():
        return read_model_file(place)
    if not (place / MANIFEST).exists():
        alone = [place / name for name in MODEL_FILES.values() if (place / name).is_file()]
        if len(alone) == 1:
            return read_model_file(alone[0])
    manifest = read_manifest(read_bytes(place / MANIFEST, LARGEST_MANIFEST), str(place / MANIFEST))
    if missing := {manifest.model_file, GOLDEN} - manifest.files.keys():
        raise ArtifactError(f"{place / MANIFEST}: files lacks {', '.join(sorted(missing))}; export the model again")
    files = {name: check_file(place, name, expected) for name, expected in manifest.files.items()}
    model_file = place / manifest.model_file
    model = files[manifest.model_file]
    inside = look_inside(manifest.runtime, model, str(model_file))
    if inside.manifest and read_manifest(inside.manifest, f"the manifest in {model_file}") != manifest.inside:
        raise ArtifactError(
            f"{place / MANIFEST} is not the manifest that {manifest.model_file} was exported with; copy the whole "
            f"folder again, or delete {MANIFEST} to use the one inside {manifest.model_file}"
        )
    return Artifact(place, manifest, model_file, model, files[GOLDEN])


def read_model_file(file: Path) -> Artifact:
    """A model file without its folder, which holds all that it takes.

    Raises:
        ArtifactError: it holds no manifest or golden pictures, or is damaged.
    """
    runtime = RUNTIMES.get(file.suffix)
    if runtime is None:
        raise ArtifactError(f"{file} is no model file; their names end with {', '.join(RUNTIMES)}")
    content = read_bytes(file)
    inside = look_inside(runtime, content, str(file))
    if inside.manifest is None or inside.golden is None:
        raise ArtifactError(
            f"{file} holds no manifest: another program or an older version of stn-serve made it; "
            "use the whole folder with its manifest.json, or export the model again"
        )
    source = f"the manifest in {file}"
    manifest = read_manifest(inside.manifest, source)
    if manifest.runtime != runtime or manifest.files != {GOLDEN: record(inside.golden)}:
        raise ArtifactError(f"{source} is not that of this file; export the model again")
    whole = manifest.model_copy(update={"files": {manifest.model_file: record(content), **manifest.files}})
    return Artifact(file.parent, whole, file, content, inside.golden)


def check_file(folder: Path, name: str, expected: FileRecord) -> bytes:
    """The content of the file for which the manifest was written.

    Raises:
        ArtifactError: it is another, or cannot be read.
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
    """The content of the regular file ``file``, of which no more than ``most`` bytes are expected.

    A FIFO, device or socket is not opened: that could block for ever. A file that grows meanwhile is not followed.

    Raises:
        ArtifactError: it cannot be read, is no regular file, is larger or grows.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise ArtifactError(f"{file} is not a regular file; put the file itself there")
        with open(file, "rb", opener=open_without_waiting) as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ArtifactError(f"{file} is not a regular file; put the file itself there")
            if most is not None and found.st_size > most:
                raise ArtifactError(f"{file} is larger than the {most:,} bytes that it should have; copy it again")
            content = stream.read(found.st_size + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ArtifactError(f"cannot read {file} ({reason}); copy the whole folder again") from error
    if len(content) > found.st_size:
        raise ArtifactError(f"{file} grew while it was read; load it again when it has been copied")
    return content


def open_without_waiting(path: str, flags: int) -> int:
    """Open a file, or a FIFO that has taken its place, without waiting for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def find_artifacts(
    models: Path, on_error: Callable[[str, ArtifactError], None] | None = None
) -> Iterator[tuple[str, int, Path]]:
    """Name, version and folder of everything in ``models`` that is laid out as ``NAME/VERSION``, sorted.

    ``models`` may be a lone model file too, which is then the only one: named as the file, in version 1. A model whose
    folder cannot be read is left out, and ``on_error`` is told its name; without ``on_error`` the error is raised.

    Raises:
        ArtifactError: there is no such folder, or it cannot be read.
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

    Killed at any moment, it leaves the old version or the new one, whole where two folders can change places in one
    step, as on Linux; elsewhere there is a moment between two renames in which the old one is whole, but hidden.

    Raises:
        ArtifactError: it cannot be written; nothing has changed then.
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        aside.mkdir(parents=True)
        for name, content in files.items():
            write_through(aside / name, content)
        write_through(aside / MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())
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
    """Write ``file`` down to the disk, so that after a power cut a renamed folder is not an empty one."""
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where the system or file system cannot."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    return bool(rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0)
