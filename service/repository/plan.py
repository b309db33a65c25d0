"""Changes to the set of served models, and how the reports of several processes become one status."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from service.errors import LoadFailedError, ModelNotFoundError
from service.repository.traffic import Switch, Traffic
from service.repository.version_policy import Policy

CHANGED = "it changed while workers read it; load it again"


class Change(NamedTuple):
    """A request to serve the versions of a model that ``policy`` chooses, or to unload the model."""

    name: str
    policy: Policy | None
    """None unloads the model."""
    switch: Switch | None = None
    """Changes the traffic instead. The policy then counts for nothing: what is served stays."""


class ModelStatus(NamedTuple):
    """The versions of a model that are served, and the target versions that could not be loaded."""

    served: Mapping[int, str]
    """The digest of each version."""
    failed: Mapping[int, str]
    """The reason for each version."""
    traffic: Traffic | None = None
    """None if the default version is that of the settings, and nothing is rolled out."""


NOTHING = ModelStatus({}, {})


def is_outdated(change: Change, before: ModelStatus) -> bool:
    """Whether ``change`` is about traffic that has changed meanwhile."""
    return change.switch is not None and change.switch.expected != before.traffic


def target_versions(change: Change, available: Iterable[tuple[str, int]], before: ModelStatus) -> list[int]:
    """The versions to load for ``change``.

    The policy chooses among the ``available`` versions. Where it finds none, those that were served ``before`` are
    kept. A policy that lists no versions leaves out none that the traffic needs.
    """
    if change.switch is not None:
        wanted = change.switch.traffic.versions if change.switch.traffic else set()
        return sorted({*before.served, *wanted})
    if change.policy is None:
        return []
    found = {version for name, version in available if name == change.name}
    chosen = change.policy.choose(found)
    if before.traffic is not None and not change.policy.versions:
        chosen = sorted({*chosen, *(before.traffic.versions & found)})
    return chosen or sorted(before.served)


def merge_reports(before: ModelStatus, reports: Sequence[ModelStatus], switch: Switch | None = None) -> ModelStatus:
    """The status that all processes switch to, given the report of each.

    A version is served only if every process has loaded the same content. While any version fails, the versions that
    were served ``before`` stay, and so does the traffic. A ``switch`` loads nothing that is served, so its failure says
    nothing about that.
    """
    failed = {version: reason for report in reports for version, reason in report.failed.items()}
    served: dict[int, str] = {}
    for version in sorted({version for report in reports for version in report.served} - failed.keys()):
        digests = {report.served.get(version, "") for report in reports}
        if len(digests) == 1:
            served[version] = digests.pop()
        else:
            failed[version] = CHANGED
    traffic = before.traffic if switch is None or failed else switch.traffic
    present = {**before.served, **served} if failed else served
    if switch is not None:  # what failed earlier has not been tried
        known = {**before.failed, **failed}
        failed = {version: reason for version, reason in known.items() if version not in present}
    return ModelStatus(present, failed, traffic.among(present) if traffic is not None else None)


def pinned(statuses: Mapping[str, ModelStatus]) -> dict[str, int]:
    """The default version of each model for which it is not that of the settings."""
    return {name: status.traffic.default for name, status in statuses.items() if status.traffic is not None}


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
