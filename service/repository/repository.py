"""Loads, replaces and unloads models while the service answers requests.

A change has two steps. `Repository.prepare` loads and warms up new versions in a thread, beside the served ones.
`Repository.commit` then switches to them all at once, on the event loop, between two requests. With several workers,
`service.workers` coordinates both steps across processes.
"""

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from typing import NamedTuple

import structlog

from export.format.artifact import ArtifactError
from service.background import BlockingCalls, Failures, repeat
from service.errors import ConflictError, LoadFailedError, MirrorError, ModelNotFoundError, NotReadyError, StartError
from service.inference.loading import Opener, default_opener, digest, load_model
from service.inference.rectified.memory import return_free_memory
from service.inference.registry import Model, Models
from service.repository.mirror import SCAN_TIMEOUT_S, scan_models, scan_timeout_s
from service.repository.plan import (
    NOTHING,
    Change,
    ModelStatus,
    check_loaded,
    is_outdated,
    merge_reports,
    pinned,
    target_versions,
)
from service.repository.poller import Poller, Scan
from service.repository.startup import find_folders
from service.repository.traffic import Rollout, Switch, Traffic
from service.repository.trust import read_trusted
from service.repository.version_policy import Policy, Selection, startup_rollouts
from service.settings import Settings

NOT_LOADED = "not loaded"
RELEASE_CHECK_S = 1.0
"""Pause between checks for retired models that have been freed."""

log = structlog.get_logger(__name__)


class State(StrEnum):
    """State of a version of a model, as Triton names it."""

    READY = "READY"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


class Entry(NamedTuple):
    """A version of a model in the index."""

    name: str
    version: int
    state: State
    reason: str
    """Why the version is not served, or differs from the folder; empty if there is nothing to report."""


class Repository:
    """Loads and unloads ``models`` while they are served. All methods are called on the event loop."""

    def __init__(
        self, settings: Settings, models: Models, opener: Opener | None = None, failures: Failures | None = None
    ) -> None:
        """``models`` are already loaded; later ones are loaded through ``opener`` (default: `open_backend`)."""
        self.failures = failures or Failures()
        """Failures of the background tasks of this process."""
        self.statuses = initial_statuses(models, startup_rollouts(settings))
        """The status of each model by name."""
        self.on_commit: Callable[[], None] = lambda: None
        """Called after every change."""
        self._settings = settings
        self._models = models
        self._opener = opener or default_opener(settings)
        self._selection = Selection(settings)
        self._poller = Poller(settings)
        self._prepared: list[Model] = []
        self._loading: set[tuple[str, int]] = set()
        self._available: set[tuple[str, int]] = set()
        self._loader = BlockingCalls("load-models")
        self._scanner = BlockingCalls("scan-models")
        self._copier = BlockingCalls("copy-models")
        """Scans that copy from a URL first; short scans do not wait for them."""
        self._change_lock = asyncio.Lock()
        self._polling: asyncio.Task[None] | None = None
        self._releasing: asyncio.Task[None] | None = None
        self._closed = False
        models.pin(pinned(self.statuses))

    def start(self) -> None:
        """Begin to poll the models folder, if the settings ask for it."""
        if self._settings.poll_s:
            self._polling = asyncio.create_task(repeat("poll_models", self._poll, self._settings.poll_s, self.failures))

    def close(self) -> None:
        """Load no further models."""
        self._closed = True
        for task in (self._polling, self._releasing):
            if task is not None:
                task.cancel()
        self._loader.close()
        self._scanner.close()
        self._copier.close()

    def index(self, ready_only: bool = False) -> list[Entry]:
        """List all versions that are served, loading, unloading, failed or in the folder at the last scan, sorted."""
        found = {key: Entry(*key, State.UNAVAILABLE, NOT_LOADED) for key in self._available}
        for name, status in self.statuses.items():
            for version, reason in status.failed.items():
                found[name, version] = Entry(name, version, State.UNAVAILABLE, reason)
        for key in self._models.leaving.values():
            found[key] = Entry(*key, State.UNLOADING, "requests in flight still use it")
        for key in self._loading:
            found[key] = Entry(*key, State.LOADING, "")
        for model in self._models:
            name, version = model.name, model.version
            reason = self.statuses[name].failed.get(version, "")
            state = State.READY
            if model.batcher.hangs:
                state, reason = State.UNAVAILABLE, "its inference hangs; load it again"
            found[name, version] = Entry(name, version, state, reason)
        return sorted(entry for entry in found.values() if entry.state is State.READY or not ready_only)

    async def rescan(self) -> None:
        """Update the index with the versions in the models folder; an unreadable folder leaves it as it was."""
        find = partial(find_folders, self._settings.models_folder, lambda _, __: None)
        try:
            self._available = set(await self._scanner.run_async(find, SCAN_TIMEOUT_S))
        except (ArtifactError, OSError) as error:
            self.failures.record("scan_models", error)

    async def load(self, name: str, policy: Policy | None = None) -> None:
        """Serve the versions of a model that ``policy`` (default: the settings) chooses, as they are in the folder now.

        Versions that are served already and have not changed are kept. The others are loaded beside them.

        Raises:
            LoadFailedError: a version cannot be loaded; all versions that were served before still are.
            ModelNotFoundError: the folder has no such model.
        """
        await self._copy()
        change = Change(name, policy or self._selection.policy(name))
        self._poller.record_request(change)
        check_loaded(name, await self.apply(change))

    async def unload(self, name: str) -> None:
        """Stop serving all versions of a model. Requests in flight are answered.

        Raises:
            ModelNotFoundError: there is no such model.
        """
        await self.rescan()
        if name not in {entry.name for entry in self.index()}:
            raise ModelNotFoundError(f"there is no model {name!r}")
        self._poller.record_request(Change(name, None))
        await self.apply(Change(name, None))

    async def switch(self, name: str, traffic: Traffic | None, expected: Traffic | None) -> None:
        """Divide the requests for a model by ``traffic`` from the next one on; versions that lack for it are loaded.

        Raises:
            ConflictError: the traffic is no longer as ``expected``.
            LoadFailedError: a version cannot be loaded; nothing has changed.
            NotReadyError: a worker failed or did not answer; nothing has changed.
        """
        if traffic is not None and not traffic.versions <= self.statuses.get(name, NOTHING).served.keys():
            await self._copy()
        status = await self.apply(Change(name, None, Switch(traffic, expected)))
        if status.traffic == traffic:
            return
        lacking = traffic.versions - status.served.keys() if traffic else set()
        reasons = [f"{name}/{each}: {status.failed[each]}" for each in sorted(lacking) if each in status.failed]
        if reasons:
            raise LoadFailedError(f"{'; '.join(reasons)} (nothing has changed)")
        if status.traffic == expected:
            raise NotReadyError(f"a worker failed or did not answer, so nothing has changed for {name}; ask again")
        raise ConflictError(f"the rollout of {name} has changed meanwhile; look at it, and ask again")

    async def apply(self, change: Change) -> ModelStatus:
        """Make a change and return the resulting status of its model."""
        async with self._change_lock:
            before = self.statuses.get(change.name, NOTHING)
            if is_outdated(change, before):
                return before
            after = merge_reports(before, [await self.prepare(change)], change.switch)
            self.commit(change.name, after)
            return after

    async def prepare(self, change: Change) -> ModelStatus:
        """Load the versions of a change beside the served ones, and report which of them can be served."""
        if change.policy is None and change.switch is None:
            return NOTHING
        self._prepared.clear()
        if change.switch is None:  # a switch names its versions, and must not wait for the listing of a slow folder
            await self.rescan()
        served = {model.version: model for model in self._models if model.name == change.name}
        loaded: dict[int, str] = {}
        failed: dict[int, str] = {}
        for version in target_versions(change, self._available, self.statuses.get(change.name, NOTHING)):
            if self._closed:
                failed[version] = "the service is shutting down"
                continue
            if change.switch is not None and version in served:  # as it is, whatever the folder has now
                loaded[version] = served[version].digest
                continue
            key = (change.name, version)
            self._loading.add(key)
            try:
                load = partial(self._load, *key, served.get(version))
                model = await self._loader.run_async(load, self._settings.load_timeout_s)
            except TimeoutError as error:
                model = f"it was not loaded within {self._settings.load_timeout_s} s: {error}"
            finally:
                self._loading.discard(key)
            if isinstance(model, Model):
                self._prepared.append(model)
                loaded[version] = model.digest
            else:
                failed[version] = model
                log.error("load_failed", model=change.name, version=version, error=model)
        return ModelStatus(loaded, failed)

    def commit(self, name: str, status: ModelStatus) -> None:
        """Serve exactly the versions in ``status`` of the model ``name``, from the next request on."""
        others = [model for model in self._models if model.name != name]
        mine = [model for model in self._models if model.name == name]
        candidates = {(model.version, model.digest): model for model in (*mine, *self._prepared)}
        self._prepared.clear()
        if status != self.statuses.pop(name, None):
            log.info("now_served", model=name, versions=sorted(status.served), failed=sorted(status.failed))
        if any(status):
            self.statuses[name] = status
        served = [*others, *(candidates[key] for key in status.served.items())]
        self._models.serve(served, pinned(self.statuses))
        self.on_commit()
        if self._releasing is None or self._releasing.done():
            self._releasing = asyncio.create_task(self._release_retired())

    def _load(self, name: str, version: int, served: Model | None) -> Model | str:
        """Load a version from the folder; ``served`` itself if it is unchanged and answers. Return text on failure.

        No exception leaves the thread, because its traceback would keep the content of the files in memory.
        """
        try:
            folder = find_folders(self._settings.models_folder, lambda _, __: None).get((name, version))
            if folder is None:
                return f"there is no {name}/{version} in {self._settings.models_folder}; put it there, or unload {name}"
            artifact = read_trusted(folder, name, version, self._settings)
            if served and served.digest == digest(artifact) and not served.batcher.hangs:
                return served
            return load_model(name, version, artifact, self._settings, self._opener, self._models.recorder)
        except (ArtifactError, StartError, OSError) as error:
            return str(error)
        except Exception as error:
            log.exception("unhandled_exception")
            return repr(error)

    async def _release_retired(self) -> None:
        """Return memory to the system as retired models are freed."""
        remaining = -1
        while remaining:
            await asyncio.sleep(RELEASE_CHECK_S)
            before, remaining = remaining, len(self._models.leaving)
            if remaining != before:
                await asyncio.to_thread(return_free_memory)

    async def _copy(self) -> None:
        """Bring the copy of models at a URL up to date, if the URL answers; what it has may be enough."""
        if self._settings.has_remote_models:
            try:
                await self._scan()
            except (MirrorError, TimeoutError) as error:
                self.failures.record("copy_models", error)

    async def _scan(self) -> Scan:
        """Copy models at a URL, and scan the folder."""
        return await self._copier.run_async(
            partial(scan_models, self._settings, self.failures), scan_timeout_s(self._settings)
        )

    async def _poll(self) -> None:
        """Apply the changes in the models folder. A change that fails is tried again later."""
        scan = await self._scan()
        for change in self._poller.changes(scan):
            try:
                status = await self.apply(change)
            except Exception as error:  # noqa: BLE001 - the other changes are still to be applied
                self._poller.mark_outdated(change.name)
                self.failures.record("poll_models", error, model=change.name)
            else:
                self._poller.record_outcome(change.name, failed=bool(status.failed))


def initial_statuses(models: Models, rollouts: Mapping[str, Rollout] | None = None) -> dict[str, ModelStatus]:
    """The status of each model that has just been loaded, by name, with the ``rollouts`` of the settings."""
    served: dict[str, dict[int, str]] = {}
    for model in models:
        served.setdefault(model.name, {})[model.version] = model.digest
    found = {name: ModelStatus(digests, {}) for name, digests in served.items()}
    for name, rollout in (rollouts or {}).items():
        if rollout.version in served.get(name, {}) and len(served[name]) > 1:
            default = models.usual_default(name)
            if default == rollout.version:
                default = max(served[name].keys() - {default})
            found[name] = found[name]._replace(traffic=Traffic(default, rollout))
    return found
