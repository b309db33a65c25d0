"""Which models and versions are served, and which of them are the defaults."""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from service.errors import ModelLoadError
from service.repository.traffic import Rollout, Rule
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
        self.rollouts = {name: rollout.version for name, rollout in startup_rollouts(settings).items()}
        """The version of each model that is rolled out from the start."""
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
        for name, version in self.rollouts.items():
            if (name, version) not in served:
                raise ModelLoadError(f"--rollout names {name}/{version}, which is not served; correct it or --load")
            if sum(other == name for other, _ in chosen) < 2:
                raise ModelLoadError(
                    f"--rollout names {name}/{version}, and no other version of {name} is served to compare it with; "
                    f"add one, name it in --default or --load, or leave out --rollout"
                )
        return chosen

    def policy(self, name: str) -> Policy:
        """The policy of the model ``name`` until an administrator requests another one."""
        rollouts = (self.rollouts[name],) if name in self.rollouts else ()
        return Policy(self.at_start.get(name, ()), self._latest, (*self.defaults.get(name, ()), *rollouts))

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


def startup_rollouts(settings: Settings) -> dict[str, Rollout]:
    """What the settings roll out from the start, by model."""
    rule = None
    if settings.promote_pictures:
        rule = Rule(
            settings.promote_pictures,
            settings.promote_agreement,
            settings.promote_corner_p95_px or None,
            settings.promote_p99_ratio or None,
        )
    return {
        name: Rollout(versions[-1], settings.rollout_shadow, settings.rollout_canary, rule)
        for name, versions in read_references(settings.rollout).items()
    }
