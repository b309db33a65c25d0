"""Which models and versions are served, and which of them are the defaults."""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from service.errors import ModelLoadError
from service.settings import Settings


class Policy(NamedTuple):
    """Which versions of a model are served: the listed versions, else the latest ones, else all."""

    versions: tuple[int, ...] = ()
    latest: int = 0
    pinned: tuple[int, ...] = ()
    """Versions that are served in addition, however many later versions there are."""

    def choose(self, available: Iterable[int]) -> list[int]:
        """Choose among the ``available`` versions. Listed versions are chosen even if they are not available."""
        if self.versions:
            return sorted(self.versions)
        found = sorted(available)
        return [version for version in found if version in found[-self.latest :] or version in self.pinned]


class Selection:
    """The models and versions that the settings select."""

    def __init__(self, settings: Settings) -> None:
        self.at_start = read_references(settings.load)
        """The versions to load at the start, by model; no versions means by policy, no models means all models."""
        self.defaults = read_references(settings.default)
        """The default versions by model. The first model is also the default model."""
        self._latest = 0 if settings.versions == "all" else int(settings.versions.partition(":")[2] or 1)

    def choose(self, available: Collection[tuple[str, int]]) -> list[tuple[str, int]]:
        """The names and versions, among the ``available`` ones, to load at the start.

        Raises:
            ModelLoadError: a model to load has no version, or a default is not loaded.
        """
        chosen = []
        for name in self.at_start or sorted({name for name, _ in available}):
            versions = self.policy(name).choose(version for other, version in available if other == name)
            if not versions:
                raise ModelLoadError(f"there is no model {name} to start with; correct --load")
            chosen += [(name, version) for version in versions]
        served = {*chosen, *((name, None) for name, _ in chosen)}
        for name, default_versions in self.defaults.items():
            for version in default_versions or (None,):
                if (name, version) not in served:
                    reference = f"{name}/{version}" if version else name
                    raise ModelLoadError(f"--default names {reference}, which is not served; correct it or --load")
        return chosen

    def policy(self, name: str) -> Policy:
        """The policy of the model ``name`` until an administrator requests another one."""
        return Policy(self.at_start.get(name, ()), self._latest, self.defaults.get(name, ()))

    def starts_with(self, name: str) -> bool:
        """Whether the model ``name`` is loaded at the start."""
        return not self.at_start or name in self.at_start


def read_references(text: str) -> Mapping[str, tuple[int, ...]]:
    """Parse ``NAME`` or ``NAME/VERSION``, separated by commas, into the versions of each name in order."""
    found: dict[str, tuple[int, ...]] = {}
    for reference in filter(None, text.split(",")):
        name, _, version = reference.partition("/")
        found[name] = (*found.get(name, ()), *([int(version)] if version else []))
    return found
