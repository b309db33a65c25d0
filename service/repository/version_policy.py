"""Which models and versions are to be served, and which of them answers a request that names none."""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from service.errors import ModelLoadError
from service.settings import Settings


class Policy(NamedTuple):
    """Which versions of a model are served: those named, else as many of the latest, else all."""

    versions: tuple[int, ...] = ()
    latest: int = 0
    pinned: tuple[int, ...] = ()
    """Versions that are kept however many later ones there are."""

    def choose(self, there: Iterable[int]) -> list[int]:
        """Of the versions that are ``there``; those named are chosen even if they are not."""
        if self.versions:
            return sorted(self.versions)
        found = sorted(there)
        return [version for version in found if version in found[-self.latest :] or version in self.pinned]


class Selection:
    """What the settings say about it."""

    def __init__(self, settings: Settings) -> None:
        self.at_start = read_references(settings.load)
        """Names, each with its versions if they are named too; empty is every model there is."""
        self.defaults = read_references(settings.default)
        """Names, each with the version that answers; the first answers where no model is named."""
        self._latest = 0 if settings.versions == "all" else int(settings.versions.partition(":")[2] or 1)

    def choose(self, there: Collection[tuple[str, int]]) -> list[tuple[str, int]]:
        """Name and version of what is served from the start, of what is ``there``.

        Raises:
            ModelLoadError: a model to start with has no version, or a default is not among them.
        """
        chosen = []
        for name in self.at_start or sorted({name for name, _ in there}):
            target_versions = self.policy(name).choose(version for other, version in there if other == name)
            if not target_versions:
                raise ModelLoadError(f"there is no model {name} to start with; correct --load")
            chosen += [(name, version) for version in target_versions]
        served = {*chosen, *((name, None) for name, _ in chosen)}
        for name, versions in self.defaults.items():
            for version in versions or (None,):
                if (name, version) not in served:
                    reference = f"{name}/{version}" if version else name
                    raise ModelLoadError(f"--default names {reference}, which is not served; correct it or --load")
        return chosen

    def policy(self, name: str) -> Policy:
        """Which versions of the model ``name`` are served unless somebody says otherwise."""
        return Policy(self.at_start.get(name, ()), self._latest, self.defaults.get(name, ()))

    def starts_with(self, name: str) -> bool:
        """Whether the model ``name`` is served from the start."""
        return not self.at_start or name in self.at_start


def read_references(text: str) -> Mapping[str, tuple[int, ...]]:
    """``NAME`` or ``NAME/VERSION``, separated by commas -> the versions of each name, in the order of the names."""
    found: dict[str, tuple[int, ...]] = {}
    for reference in filter(None, text.split(",")):
        name, _, version = reference.partition("/")
        found[name] = (*found.get(name, ()), *([int(version)] if version else []))
    return found
