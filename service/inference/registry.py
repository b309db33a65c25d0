"""The models that are served, found by name and version."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from weakref import WeakKeyDictionary

from export.artifact import Manifest
from service.errors import ModelNotFoundError
from service.inference.admission import CapacityLimiter
from service.inference.batcher import Batcher
from service.inference.outputs import ModelOutput
from service.metrics.drift import Window
from service.metrics.recorder import Counts, Key, Recorder, labels


class Model(NamedTuple):
    """One version of one model, ready to answer; who has found it keeps it until the answer is sent."""

    name: str
    version: int
    manifest: Manifest
    device: str
    batcher: Batcher[ModelOutput]
    limiter: CapacityLimiter
    digest: str
    """Of the artifact that it was loaded from: the same for the same content."""
    window: Window | None
    """What its last pictures showed; None where there is nothing to compare it with."""


class Models:
    """All that are served, by name and version; they come and go all at once (`serve`)."""

    def __init__(
        self,
        models: Iterable[Model],
        defaults: Mapping[str, tuple[int, ...]] | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """``defaults`` is as in `Selection`; ``recorder`` counts the inferences of ``models``."""
        self.recorder = recorder or Recorder()
        self._defaults = defaults or {}
        self._served: tuple[Model, ...] = ()
        self._found: dict[tuple[str | None, int | None], Model] = {}
        self.changes = 0
        """How often there have been others."""
        self._leaving: WeakKeyDictionary[Batcher[ModelOutput], tuple[str, int]] = WeakKeyDictionary()
        self.serve(models)

    def __iter__(self) -> Iterator[Model]:
        return iter(self._served)

    def serve(self, models: Iterable[Model]) -> None:
        """From now on serve ``models`` and no others.

        Nothing refers to those that go but the requests that use them: with the last one's answer they are gone, and
        their memory with them.
        """
        before, self._served = self._served, tuple(sorted(models, key=lambda model: (model.name, model.version)))
        self._found = self._index()
        self.changes += 1
        batchers = set(self.batchers)
        for model in before:
            if model.batcher not in batchers:
                self._leaving[model.batcher] = (model.name, model.version)

    @property
    def batchers(self) -> list[Batcher[ModelOutput]]:
        """Of the models that are served."""
        return [model.batcher for model in self._served]

    @property
    def leaving(self) -> dict[Batcher[ModelOutput], tuple[str, int]]:
        """Name and version of those that requests still use although they are not served any more."""
        return dict(self._leaving)

    @property
    def default_name(self) -> str | None:
        """The model that answers where none is named: the first of ``defaults``, else the first by name."""
        return next(iter(self._defaults), self._served[0].name if self._served else None)

    def find(self, name: str | None, version: int | None) -> Model:
        """The model asked for; left out, the default model's or the model's default version.

        Raises:
            ModelNotFoundError: there is none; the message lists those that are.
        """
        model = self._found.get((name, version))
        if model is None:
            raise self._unknown(self.default_name if name is None else name, version)
        return model

    def is_default(self, model: Model) -> bool:
        """Whether ``model`` answers where its name is given without a version."""
        return self._found.get((model.name, None)) is model

    def gauges(self, max_queue: int) -> Counts:
        """Return the present values of all models, each of which may have ``max_queue`` pictures in flight."""
        gauges: Counts = {}
        for model in self._served:
            key = labels((model.name, model.version))
            gauges["info", *key, model.manifest.runtime, model.device, model.manifest.precision] = [1]
            gauges["queue", *key] = [model.batcher.waiting + model.limiter.queued]
            gauges["in_flight", *key] = [model.limiter.pictures]
            gauges["limit", *key] = [max_queue]
            gauges["hangs", *key] = [model.batcher.hangs]
            if model.window is not None:
                for position, shown in enumerate(model.window.shows()):
                    gauges["drift", *key, str(position)] = [*shown.counts, shown.total]
        return gauges

    def drift_windows(self) -> Mapping[Key, Window]:
        """Return the drift window of each model that has one, by its labels."""
        return {labels((m.name, m.version)): m.window for m in self._served if m.window is not None}

    def _index(self) -> dict[tuple[str | None, int | None], Model]:
        found: dict[tuple[str | None, int | None], Model] = {}
        for model in self._served:
            found[model.name, model.version] = found[model.name, None] = model
        for name, versions in self._defaults.items():
            for version in versions:
                if model_pinned := found.get((name, version)):
                    found[name, None] = model_pinned
        default = self.default_name
        return found | {(None, version): model for (name, version), model in found.items() if name == default}

    def _unknown(self, name: str | None, version: int | None) -> ModelNotFoundError:
        if not self._served:
            return ModelNotFoundError("no model is served at present; ask again later, or ask for one to be loaded")
        there = ", ".join(str(model.version) for model in self._served if model.name == name)
        if there:
            return ModelNotFoundError(f"{name} has no version {version}; it has: {there}")
        names = ", ".join(sorted({model.name for model in self._served}))
        return ModelNotFoundError(f"no model is called {name!r}; there are: {names}")
