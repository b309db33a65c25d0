"""Changes to the set of served models, and how the reports of several processes become one status."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from service.errors import LoadFailedError, ModelNotFoundError
from service.repository.version_policy import Policy

CHANGED = "it changed while workers read it; load it again"


class Change(NamedTuple):
    """A request to serve the versions of a model that ``policy`` chooses, or to unload the model."""

    name: str
    policy: Policy | None
    """None unloads the model."""


class ModelStatus(NamedTuple):
    """The versions of a model that are served, and the target versions that could not be loaded."""

    served: Mapping[int, str]
    """The digest of each version."""
    failed: Mapping[int, str]
    """The reason for each version."""


def target_versions(change: Change, available: Iterable[tuple[str, int]], served: Iterable[int]) -> list[int]:
    """The versions to load for ``change``.

    The policy chooses among the ``available`` versions. Where it finds none, the ``served`` versions are kept.
    """
    if change.policy is None:
        return []
    return change.policy.choose(version for name, version in available if name == change.name) or sorted(served)


def merge_reports(before: ModelStatus, reports: Sequence[ModelStatus]) -> ModelStatus:
    """The status that all processes switch to, given the report of each.

    A version is served only if every process has loaded the same content. While any version fails, the versions that
    were served ``before`` stay.
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


def check_loaded(name: str, status: ModelStatus) -> None:
    """Raise an error if ``status`` is not that of a successful load.

    Raises:
        LoadFailedError: a version could not be loaded.
        ModelNotFoundError: there is nothing to load.
    """
    if status.failed:
        reasons = "; ".join(f"{name}/{version}: {reason}" for version, reason in sorted(status.failed.items()))
        raise LoadFailedError(f"{reasons} (the versions that were served before still are)")
    if not status.served:
        raise ModelNotFoundError(f"there is no model {name!r} in the models folder")
