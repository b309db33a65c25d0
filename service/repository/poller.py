"""Detects changes in the models folder by the names, sizes and times of its files, without reading them."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from export.format.artifact import ArtifactError, find_artifacts
from service.repository.plan import Change
from service.repository.version_policy import Policy, Selection
from service.settings import Settings

Stamp = tuple[tuple[str, int, int, int], ...]
"""Name, modification time, size and inode of each file of a version."""
Scan = Mapping[str, Mapping[int, Stamp] | None]
"""The stamp of each version, by model; None for a model whose folder cannot be read at present."""
OUTDATED: Final[Mapping[int, Stamp]] = {0: ()}
"""Differs from the stamps of any folder, since versions begin at 1."""

LONGEST_RETRY_S = 3600.0
"""Longest pause before a change that failed is tried again, though the folder is as it was."""

log = structlog.get_logger(__name__)


class Failed(NamedTuple):
    """A model whose last change failed, perhaps because of a read that would succeed now."""

    times: int
    """How often in a row."""
    retry: float
    """When it is to be tried again, as `time.monotonic` gives it."""


class Poller:
    """Compares scans of the models folder with the state that was last applied."""

    def __init__(self, settings: Settings) -> None:
        self._selection = Selection(settings)
        self._requested: dict[str, Policy | None] = {}
        self._applied: dict[str, Mapping[int, Stamp]] = {}
        self._poll_s = settings.poll_s
        self._failed: dict[str, Failed] = {}

    def record_request(self, change: Change) -> None:
        """Follow ``change`` from now on instead of the settings."""
        self._requested[change.name] = change.policy

    def mark_outdated(self, name: str) -> None:
        """Report the model ``name`` again at the next scan, since its last change could not be applied."""
        self._applied[name] = OUTDATED

    def record_outcome(self, name: str, *, failed: bool) -> None:
        """Record whether the last change to the model ``name`` failed; it is reported again after a growing pause."""
        times = self._failed.pop(name, Failed(0, 0.0)).times + 1
        if failed:
            pause_s = min(self._poll_s * 2.0 ** min(times, 30), LONGEST_RETRY_S)
            self._failed[name] = Failed(times, time.monotonic() + pause_s)

    def changes(self, scan: Scan) -> list[Change]:
        """The changes that make the service serve the scanned folder: all models at first, then what has changed.

        A change that failed is among them again when its pause is over.

        An empty folder changes nothing: an unmounted disk looks like one. A model whose folder cannot be read stays
        as it is.
        """
        changes = []
        for name in sorted({*scan, *self._applied}) if scan else ():
            policy, found = self._policy(name), scan.get(name, {})
            if policy is None or found is None:
                continue
            chosen = {version: found[version] for version in policy.choose(found) if version in found}
            is_new = chosen != self._applied.get(name, {})
            if is_new:
                self._failed.pop(name, None)
            if is_new or (name in self._failed and time.monotonic() >= self._failed[name].retry):
                self._applied[name] = chosen
                changes.append(Change(name, policy if found else None))
        return changes

    def _policy(self, name: str) -> Policy | None:
        configured = self._selection.policy(name) if self._selection.starts_with(name) else None
        return self._requested.get(name, configured)


def scan_folder(models: Path) -> Scan:
    """Stamp every version of every model in ``models``.

    Raises:
        ArtifactError: the folder cannot be read.
    """
    found: dict[str, dict[int, Stamp] | None] = {}

    def skip(name: str, error: ArtifactError) -> None:
        log.warning("model_folder_unreadable", model=name, error=str(error))
        found[name] = None

    for name, version, path in find_artifacts(models, skip):
        versions = found.setdefault(name, {})
        if versions is not None:
            versions[version] = stamp(path)
    return found


def stamp(path: Path) -> Stamp:
    """Stamp the files of a version; empty while the folder is being written or removed."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        statuses = [(file.name, file.stat()) for file in files]
    except OSError:
        return ()
    return tuple((name, status.st_mtime_ns, status.st_size, status.st_ino) for name, status in statuses)
