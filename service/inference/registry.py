"""The models that are served, found by name and version."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol
from weakref import WeakKeyDictionary

from export.format.artifact import Manifest
from imaging.preprocessing import Picture
from service.errors import ModelNotFoundError
from service.inference.admission import CapacityLimiter
from service.inference.batcher import Batcher
from service.inference.outputs import ModelOutput
from service.inference.preprocessing import Upload
from service.inference.views.reliability import Reliability
from service.metrics.drift import Window
from service.metrics.recorder import Counts, Key, Recorder, labels


class Model(NamedTuple):
    """A loaded version of a model. It stays loaded as long as a request refers to it."""

    name: str
    version: int
    manifest: Manifest
    device: str
    batcher: Batcher[ModelOutput]
    limiter: CapacityLimiter
    digest: str
    """The hash of the artifact; equal for equal content."""
    window: Window | None
    """The last pictures, to detect drift; None if the artifact has no reference."""
    signer: str = ""
    """See `Artifact.signer`."""


class Seen(NamedTuple):
    """A picture that a model has answered."""

    model: Model
    output: ModelOutput
    picture: Picture
    upload: Upload | None
    """None if the picture came as a tensor."""
    reliability: Reliability | None = None
    """None if it was not asked for."""


class Rollouts(Protocol):
    """Tries other versions beside the default versions of some models."""

    def choose(self, model: Model, *, same_tensors: bool) -> Model:
        """Return the version that answers the current request, which asks for the default version, ``model``.

        With ``same_tensors`` it has the same inputs and outputs.
        """

    def observe(self, seen: Seen) -> None:
        """Note an answered picture."""


class Models:
    """The served models by name and version. `serve` replaces all of them at once."""

    def __init__(
        self,
        models: Iterable[Model],
        defaults: Mapping[str, tuple[int, ...]] | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """``defaults`` is as in `Selection`; ``recorder`` counts the inferences of ``models``."""
        self.recorder = recorder or Recorder()
        self.observer: Rollouts | None = None
        """Is told of every answered picture."""
        self._defaults = defaults or {}
        self._served: tuple[Model, ...] = ()
        self._found: dict[tuple[str | None, int | None], Model] = {}
        self._undivided = self._found
        """`_found` without what `_divider` decides about."""
        self._divider: Rollouts | None = None
        self._divided: frozenset[str] = frozenset()
        self._pinned: Mapping[str, int] = {}
        self.changes = 0
        """How often the models have been replaced."""
        self._leaving: WeakKeyDictionary[Batcher[ModelOutput], tuple[str, int]] = WeakKeyDictionary()
        self.serve(models)

    def __iter__(self) -> Iterator[Model]:
        return iter(self._served)

    def serve(self, models: Iterable[Model], pinned: Mapping[str, int] | None = None) -> None:
        """Serve exactly ``models`` from now on, with the default versions ``pinned`` whatever the settings say.

        Only requests in flight still refer to the other models, which are freed with the last of these requests.
        """
        before, self._served = self._served, tuple(sorted(models, key=lambda model: (model.name, model.version)))
        self.pin(pinned or {})
        self.changes += 1
        batchers = set(self.batchers)
        for model in before:
            if model.batcher not in batchers:
                self._leaving[model.batcher] = (model.name, model.version)

    def pin(self, versions: Mapping[str, int]) -> None:
        """Let these default versions replace those of the settings, for each model that has them."""
        self._pinned = versions
        self._found = self._index()
        self.divide(self._divider, self._divided)

    def divide(self, divider: Rollouts | None, names: Iterable[str]) -> None:
        """Have ``divider`` decide which version answers requests for the default versions of ``names``."""
        self._divider, self._divided = divider, frozenset(names)
        self._undivided = {
            key: model for key, model in self._found.items() if key[1] is not None or model.name not in self._divided
        }

    @property
    def batchers(self) -> list[Batcher[ModelOutput]]:
        """The batchers of the served models."""
        return [model.batcher for model in self._served]

    @property
    def leaving(self) -> dict[Batcher[ModelOutput], tuple[str, int]]:
        """Name and version of the retired models that requests in flight still use."""
        return dict(self._leaving)

    @property
    def default_name(self) -> str | None:
        """The model for requests that name none: the first of ``defaults``, else the first by name."""
        return next(iter(self._defaults), self._served[0].name if self._served else None)

    def find(self, name: str | None, version: int | None) -> Model:
        """Return a model. ``None`` stands for the default model or the default version of a model.

        Raises:
            ModelNotFoundError: there is none; the message lists the served models.
        """
        model = self._found.get((name, version))
        if model is None:
            raise self._unknown(self.default_name if name is None else name, version)
        return model

    def route(self, name: str | None, version: int | None, *, same_tensors: bool = False) -> Model:
        """Return the model that answers the current request, which names this one; see `find` and `Rollouts.choose`."""
        model = self._undivided.get((name, version))
        if model is None:
            model = self.find(name, version)
            if self._divider is not None:
                return self._divider.choose(model, same_tensors=same_tensors)
        return model

    def usual_default(self, name: str) -> int:
        """Return the version of a served model that is its default by the settings."""
        versions = [model.version for model in self._served if model.name == name]
        return next(
            (version for version in reversed(self._defaults.get(name, ())) if version in versions), versions[-1]
        )

    def is_default(self, model: Model) -> bool:
        """Whether ``model`` is the default version of its name."""
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
                for position, observed in enumerate(model.window.observed()):
                    gauges["drift", *key, str(position)] = [*observed.counts, observed.total]
        return gauges

    def drift_windows(self) -> Mapping[Key, Window]:
        """Return the drift window of each model that has one, by its labels."""
        return {labels((m.name, m.version)): m.window for m in self._served if m.window is not None}

    def _index(self) -> dict[tuple[str | None, int | None], Model]:
        found: dict[tuple[str | None, int | None], Model] = {}
        for model in self._served:
            found[model.name, model.version] = found[model.name, None] = model
        defaults = [(name, version) for name, versions in self._defaults.items() for version in versions]
        for name, version in (*defaults, *self._pinned.items()):
            if model_pinned := found.get((name, version)):
                found[name, None] = model_pinned
        default = self.default_name
        return found | {(None, version): model for (name, version), model in found.items() if name == default}

    def _unknown(self, name: str | None, version: int | None) -> ModelNotFoundError:
        if not self._served:
            return ModelNotFoundError("no model is served at present; ask again later, or ask for one to be loaded")
        versions = ", ".join(str(model.version) for model in self._served if model.name == name)
        if versions:
            return ModelNotFoundError(f"{name} has no version {version}; it has: {versions}")
        names = ", ".join(sorted({model.name for model in self._served}))
        return ModelNotFoundError(f"no model is called {name!r}; there are: {names}")
