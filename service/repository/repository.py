"""The models folder while the service runs: what of it is loaded, comes, goes or cannot be had, and why.

A change has two steps. `Repository.prepare` loads and warms up what is new beside what is served, in a thread.
`Repository.commit` then switches all at once, on the event loop, between two requests. `service.workers` puts
other processes between the two.
"""

import asyncio
import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import StrEnum
from functools import partial
from typing import NamedTuple, TypeVar

import structlog

from export.artifact import ArtifactError, read_artifact
from service.errors import ModelNotFoundError, StartError
from service.inference.registry import Model, Models, Opener, default_opener, digest, find_folders, load_model
from service.repository.plan import Change, ModelStatus, check_loaded, merge_reports, target_versions
from service.repository.poller import Poller
from service.repository.version_policy import Policy, Selection
from service.settings import Settings

NOT_LOADED = "not loaded"
SETTLE_S = 1.0
"""Between a switch and a look at what is left of the models that went."""

Value = TypeVar("Value")

log = structlog.get_logger(__name__)


class State(StrEnum):
    """Of a version of a model, in Triton's words."""

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
    """Why it is not served, or not as it is in the folder; empty when there is nothing to say."""


class Repository:
    """Loads and unloads ``models`` while they are served. All methods are called on the event loop."""

    def __init__(self, settings: Settings, models: Models, opener: Opener | None = None) -> None:
        """``models`` are those that have been loaded; others are loaded through ``opener`` (`open_backend`)."""
        self._settings = settings
        self._models = models
        self._opener = opener or default_opener(settings)
        self._selection = Selection(settings)
        self._watch = Poller(settings)
        self.standings = standings(models)
        """By name of the model."""
        self._prepared: list[Model] = []
        self._loading: set[tuple[str, int]] = set()
        self._there: set[tuple[str, int]] = set()
        self._thread = one_thread()
        self._turn = asyncio.Lock()
        self._polling: asyncio.Task[None] | None = None
        self._seeing_off: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to look for changes in the folder, if that was asked for."""
        if self._settings.poll_s:
            self._polling = asyncio.create_task(self._poll())

    def close(self) -> None:
        """Load nothing any more."""
        self._closed = True
        for task in (self._polling, self._seeing_off):
            if task is not None:
                task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def index(self, ready_only: bool = False) -> list[Entry]:
        """All versions that are served, come, go, failed, or were in the folder at the last look, sorted."""
        found = {key: Entry(*key, State.UNAVAILABLE, NOT_LOADED) for key in self._there}
        for name, standing in self.standings.items():
            for version, reason in standing.failed.items():
                found[name, version] = Entry(name, version, State.UNAVAILABLE, reason)
        for key in self._models.leaving.values():
            found[key] = Entry(*key, State.UNLOADING, "requests under way still use it")
        for key in self._loading:
            found[key] = Entry(*key, State.LOADING, "")
        for model in self._models:
            name, version = model.name, model.version
            reason = self.standings[name].failed.get(version, "")
            state = State.READY
            if model.batcher.hangs:
                state, reason = State.UNAVAILABLE, "it does not answer any more; load it again"
            found[name, version] = Entry(name, version, state, reason)
        return sorted(entry for entry in found.values() if entry.state is State.READY or not ready_only)

    async def rescan(self) -> None:
        """Note for the index what the folder holds now; what it held before if it cannot be read."""
        try:
            self._there = set(await asyncio.to_thread(find_folders, self._settings.models))
        except ArtifactError as error:
            log.warning("models_folder_unreadable", error=str(error))

    async def load(self, name: str, policy: Policy | None = None) -> None:
        """Serve the versions of a model that ``policy`` (that of the settings) chooses, as they are in the folder now.

        Those that are served already and have not changed stay as they are. The others are loaded beside them.

        Raises:
            LoadFailedError: a version cannot be loaded; all that was served before still is.
            ModelNotFoundError: the folder has no such model.
        """
        change = Change(name, policy or self._selection.policy(name))
        self._watch.note(change)
        check_loaded(name, await self.apply(change))

    async def unload(self, name: str) -> None:
        """Serve no version of a model any more. Requests under way are answered.

        Raises:
            ModelNotFoundError: there is no such model.
        """
        await self.rescan()
        if name not in {entry.name for entry in self.index()}:
            raise ModelNotFoundError(f"there is no model {name!r}")
        self._watch.note(Change(name, None))
        await self.apply(Change(name, None))

    async def apply(self, change: Change) -> ModelStatus:
        """Make a change, whose outcome this process decides alone."""
        async with self._turn:
            before = self.standings.get(change.name, ModelStatus({}, {}))
            after = merge_reports(before, [await self.prepare(change)])
            self.commit(change.name, after)
            return after

    async def prepare(self, change: Change) -> ModelStatus:
        """Load what a change takes, beside what is served; what can be served then, and what cannot."""
        if change.policy is None:
            return ModelStatus({}, {})
        self._prepared.clear()
        await self.rescan()
        served = {model.version: model for model in self._models if model.name == change.name}
        good: dict[int, str] = {}
        failed: dict[int, str] = {}
        for version in target_versions(change, self._there, served):
            if self._closed:
                failed[version] = "the service is shutting down"
                continue
            key = (change.name, version)
            self._loading.add(key)
            try:
                loaded = await self._in_thread(partial(self._load, *key, served.get(version)))
            except TimeoutError:
                loaded = f"it was not loaded within {self._settings.load_timeout_s} s and is given up"
            finally:
                self._loading.discard(key)
            if isinstance(loaded, Model):
                self._prepared.append(loaded)
                good[version] = loaded.digest
            else:
                failed[version] = loaded
                log.error("load_failed", model=change.name, version=version, error=loaded)
        return ModelStatus(good, failed)

    def commit(self, name: str, standing: ModelStatus) -> None:
        """Serve exactly ``standing`` of the model ``name``, from the next request on."""
        others = [model for model in self._models if model.name != name]
        mine = [model for model in self._models if model.name == name]
        had = {(model.version, model.digest): model for model in (*mine, *self._prepared)}
        self._prepared.clear()
        self._models.serve([*others, *(had[key] for key in standing.served.items())])
        if standing != self.standings.pop(name, None):
            log.info("now_served", model=name, versions=sorted(standing.served), failed=sorted(standing.failed))
        if any(standing):
            self.standings[name] = standing
        if self._seeing_off is None or self._seeing_off.done():
            self._seeing_off = asyncio.create_task(self._release_retired())

    def _load(self, name: str, version: int, served: Model | None) -> Model | str:
        """The version as it is in the folder, ``served`` itself if it is just that and answers; or why there is none.

        No error leaves the thread: its traceback would keep what was read in memory.
        """
        try:
            folder = find_folders(self._settings.models).get((name, version))
            if folder is None:
                return f"there is no {name}/{version} in {self._settings.models}; put it there, or unload {name}"
            artifact = read_artifact(folder)
            if served and served.digest == digest(artifact) and not served.batcher.hangs:
                return served
            return load_model(name, version, artifact, self._settings, self._opener)
        except (ArtifactError, StartError) as error:
            return str(error)
        except Exception as error:
            log.exception("unhandled_exception")
            return repr(error)

    async def _in_thread(self, work: Callable[[], Value]) -> Value:
        """What ``work`` gives.

        Raises:
            TimeoutError: it does not end; its thread is left to itself.
        """
        job = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.wait_for(job, self._settings.load_timeout_s)
        except TimeoutError:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = one_thread()
            raise

    async def _release_retired(self) -> None:
        """Give memory back as the models that are not served any more go."""
        remaining = -1
        while remaining:
            await asyncio.sleep(SETTLE_S)
            before, remaining = remaining, len(self._models.leaving)
            if remaining != before:
                await asyncio.to_thread(give_memory_back)

    async def _poll(self) -> None:
        while True:
            for change in await asyncio.to_thread(self._watch.changes):
                await self.apply(change)
            await asyncio.sleep(self._settings.poll_s)


def one_thread() -> ThreadPoolExecutor:
    """For what must not hold the event loop."""
    return ThreadPoolExecutor(1, thread_name_prefix="loading")


def give_memory_back() -> None:
    """Have the C library return to the system what is free: GNU's keeps it for itself."""
    with suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def standings(models: Models) -> dict[str, ModelStatus]:
    """Of models that have just been loaded, by name."""
    served: dict[str, dict[int, str]] = {}
    for model in models:
        served.setdefault(model.name, {})[model.version] = model.digest
    return {name: ModelStatus(digests, {}) for name, digests in served.items()}
