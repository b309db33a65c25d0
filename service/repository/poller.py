"""Looks for changes in the models folder, from what its files look like: names, sizes and times, not contents."""

from pathlib import Path

import structlog

from export.artifact import ArtifactError, find_artifacts
from service.repository.plan import Change
from service.repository.version_policy import Policy, Selection
from service.settings import Settings

Stamp = tuple[tuple[str, int, int, int], ...]

log = structlog.get_logger(__name__)


class Poller:
    """What is wanted of the folder, and what it looked like when that was last made so."""

    def __init__(self, settings: Settings) -> None:
        self._models = settings.models
        self._selection = Selection(settings)
        self._wishes: dict[str, Policy | None] = {}
        self._seen: dict[str, dict[int, Stamp]] = {}

    def note(self, change: Change) -> None:
        """Somebody wants this from now on, whatever the settings say."""
        self._wishes[change.name] = change.policy

    def changes(self) -> list[Change]:
        """What it takes to serve what is in the folder now; everything the first time, then what has changed.

        A folder that cannot be read or holds no model at all is taken for a disk that is gone, and changes nothing.
        """
        try:
            found = stamps(self._models)
        except ArtifactError as error:
            log.warning("models_folder_unreadable", error=str(error))
            return []
        changes = []
        for name in sorted({*found, *self._seen}) if found else ():
            policy = self._policy(name)
            if policy is None:
                continue
            there = found.get(name, {})
            chosen = {version: there[version] for version in policy.choose(there) if version in there}
            if chosen != self._seen.get(name, {}):
                self._seen[name] = chosen
                changes.append(Change(name, policy if there else None))
        return changes

    def _policy(self, name: str) -> Policy | None:
        configured = self._selection.policy(name) if self._selection.starts_with(name) else None
        return self._wishes.get(name, configured)


def stamps(models: Path) -> dict[str, dict[int, Stamp]]:
    """What each version of each model looks like.

    Raises:
        ArtifactError: the folder cannot be read.
    """
    found: dict[str, dict[int, Stamp]] = {}
    for name, version, place in find_artifacts(models):
        found.setdefault(name, {})[version] = stamp(place)
    return found


def stamp(place: Path) -> Stamp:
    """What the files of an artifact look like; nothing while they come or go."""
    try:
        files = sorted(place.iterdir()) if place.is_dir() else [place]
        looks = [(file.name, file.stat()) for file in files]
    except OSError:
        return ()
    return tuple((name, rescan.st_mtime_ns, rescan.st_size, rescan.st_ino) for name, rescan in looks)
