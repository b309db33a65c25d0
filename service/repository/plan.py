"""What may change in what is served of a model, and how several processes come to the same."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from service.errors import LoadFailedError, ModelNotFoundError
from service.repository.version_policy import Policy

CHANGED = "it changed while it was read; load it again"


class Change(NamedTuple):
    """A wish: to serve the versions of a model that a policy chooses, as they are in the folder, or none of them."""

    name: str
    policy: Policy | None


class ModelStatus(NamedTuple):
    """What is served of a model, or could be, and what is not although it was wanted."""

    served: Mapping[int, str]
    """The digest of each version."""
    failed: Mapping[int, str]
    """The reason for each version."""


def target_versions(change: Change, there: Iterable[tuple[str, int]], served: Iterable[int]) -> list[int]:
    """The versions that a change is about: chosen of those ``there``, else those ``served``; none to unload."""
    if change.policy is None:
        return []
    return change.policy.choose(version for name, version in there if name == change.name) or sorted(served)


def merge_reports(before: ModelStatus, reports: Sequence[ModelStatus]) -> ModelStatus:
    """The standing of a model that all processes take, of what each of them could serve.

    Each takes only what all have loaded. While any version fails, nothing that was served goes.
    """
    failed = {version: reason for report in reports for version, reason in report.failed.items()}
    served: dict[int, str] = {}
    for version in sorted({version for report in reports for version in report.served} - failed.keys()):
        digests = {report.served.get(version, "") for report in reports}
        if len(digests) == 1:
            served[version] = digests.pop()
        else:
            failed[version] = CHANGED
    return ModelStatus({**before.served, **served} if failed else served, failed)


def check_loaded(name: str, standing: ModelStatus) -> None:
    """Raise what a load has to answer with that led to ``standing``.

    Raises:
        LoadFailedError: a version could not be loaded.
        ModelNotFoundError: there is nothing to load.
    """
    if standing.failed:
        reasons = "; ".join(f"{name}/{version}: {reason}" for version, reason in sorted(standing.failed.items()))
        raise LoadFailedError(f"{reasons} (what was served before still is)")
    if not standing.served:
        raise ModelNotFoundError(f"there is no model {name!r} in the models folder")
