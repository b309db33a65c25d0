"""Keeps a copy of the models at a URL in a folder of this machine: each version whole and verified, or not at all."""

import shutil
from pathlib import Path

import structlog

from export.format.artifact import MANIFEST, SIGNATURE, ArtifactError, find_artifacts, write_files
from export.format.remote import RemoteModels, RemoteVersion, describe, listed_sizes
from service.background import Failures
from service.errors import MirrorError
from service.repository.poller import Scan, scan_folder
from service.settings import Settings

SCAN_TIMEOUT_S = 10.0
"""Longest time to list the models folder, which may be on a network file system that does not answer."""
Problems = dict[tuple[str, int], str]
"""Why a version could not be copied, by name and version."""

log = structlog.get_logger(__name__)


def refresh(settings: Settings) -> Problems:
    """Make the folder equal to the URL. Of a version that cannot be copied, the old copy is kept.

    Processes that share the folder take turns.

    Raises:
        MirrorError: the URL cannot be listed or holds no models, or the folder cannot be written; nothing was changed.
    """
    try:
        from filelock import FileLock, Timeout
    except ImportError as error:
        raise MirrorError(f"models at URLs need the package {error.name}; pip install 'stn-serve[remote]'") from error

    folder = settings.models_folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock"), timeout=settings.load_timeout_s):
            remote = RemoteModels(settings.models)
            there = remote.versions()
            if not there:
                raise MirrorError(f"there is no model at {remote.url}; it must hold NAME/VERSION/manifest.json")
            for leftover in folder.glob("*/.*"):  # of a process that was killed
                shutil.rmtree(leftover)
            problems = {}
            for (name, version), files in there.items():
                try:
                    if copy(remote, files, folder / name / str(version)):
                        log.info("model_copied", model=name, version=version, url=remote.url)
                except ArtifactError as error:
                    problems[name, version] = str(error)
            for name, version, copied in list(find_artifacts(folder)):
                if (name, version) not in there:
                    shutil.rmtree(copied.rename(copied.with_name(f".{version}.old")))
                    log.info("model_removed", model=name, version=version, url=remote.url)
            return problems
    except Timeout as error:
        raise MirrorError(f"another process has been copying to {folder} for {settings.load_timeout_s} s") from error
    except ArtifactError as error:
        raise MirrorError(str(error)) from error
    except OSError as error:
        raise MirrorError(f"cannot write {folder} ({describe(error)}); choose another STN_MODELS_CACHE") from error


def copy(remote: RemoteModels, version: RemoteVersion, folder: Path) -> bool:
    """Copy a version, and return whether it differed from the copy.

    Raises:
        ArtifactError: it cannot be read, is not what its manifest says, or cannot be written.
    """
    revision_file = folder.with_suffix(".revision")
    is_copied = is_whole(folder)
    if version.revision and is_copied and read(revision_file) == version.revision.encode():
        return False
    head = remote.head(version)
    differs = not is_copied or any(read(folder / name) != head.get(name, b"") for name in (MANIFEST, SIGNATURE))
    if differs:
        write_files(folder, remote.rest(version, head) | head)
    revision_file.write_text(version.revision)
    return differs


def is_whole(folder: Path) -> bool:
    """Whether a copy has every file that its manifest lists, in the listed size."""
    try:
        listed = listed_sizes(read(folder / MANIFEST), str(folder / MANIFEST))
        return all((folder / name).stat().st_size == size for name, size in listed.items())
    except (ArtifactError, OSError):
        return False


def read(file: Path) -> bytes:
    """Return the content of a file; empty if there is none."""
    return file.read_bytes() if file.is_file() else b""


def scan_models(settings: Settings, failures: Failures) -> Scan:
    """Bring the copy of models at a URL up to date, and stamp every version in the models folder.

    Raises:
        ArtifactError: the folder cannot be read.
        MirrorError: the URL cannot be read.
    """
    if settings.has_remote_models:
        for (name, version), problem in refresh(settings).items():
            failures.record("copy_models", MirrorError(problem), model=name, version=version)
    return scan_folder(settings.models_folder)


def scan_timeout_s(settings: Settings) -> float:
    """Return the longest time that `scan_models` may take."""
    return settings.load_timeout_s if settings.has_remote_models else SCAN_TIMEOUT_S


def copy_at_start(settings: Settings) -> None:
    """Copy models at a URL. Without an answer from there, an earlier copy is enough.

    Raises:
        MirrorError: there is neither.
    """
    if not settings.has_remote_models:
        return
    try:
        problems = refresh(settings)
    except MirrorError as error:
        if not settings.models_folder.is_dir() or not any(find_artifacts(settings.models_folder)):
            raise
        log.warning("models_offline", error=str(error), folder=str(settings.models_folder))
        return
    for (name, version), problem in problems.items():
        log.warning("model_not_copied", model=name, version=version, error=problem)
