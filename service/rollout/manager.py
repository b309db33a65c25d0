"""The rollouts of one process: who answers, what is compared, and when a new version becomes the default.

What is rolled out is part of the status of a model (`service.repository`), so that all workers agree on it. Each of
them compares its own pictures.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import random
from time import monotonic

import structlog

from imaging.limits.limits import Limits as PictureLimits
from service.errors import ConflictError, InferenceFailedError, ModelNotFoundError
from service.inference.loading import Opener, default_opener
from service.inference.outputs import class_probabilities
from service.inference.registry import Model, Models, Seen
from service.metrics.recorder import Counts
from service.repository.repository import Repository
from service.repository.traffic import Rollout, Rule, Traffic
from service.request_context import present
from service.rollout.capture import Capture
from service.rollout.comparison import Comparison, Summary
from service.rollout.messages import Failed, Job, Outcome, Shown
from service.rollout.shadow import Limits, Offer, Shadow
from service.settings import Settings

RULE_CHECK_S = 1.0
"""Shortest time between two checks of a rule."""

log = structlog.get_logger(__name__)


@dataclass
class Trial:
    """A version beside the default version of its model."""

    rollout: Rollout
    default: Model
    version: Model
    comparison: Comparison
    shadow: Shadow | None = None
    next_check: float = 0.0
    """When the rule may be checked again."""
    promoting: bool = False

    def is_same(self, rollout: Rollout, default: Model, version: Model) -> bool:
        """Whether these versions are compared, in whatever shares."""
        return self.rollout.version == rollout.version and self.default is default and self.version is version


class Ended:
    """A rollout of the past."""

    def __init__(self, version: int, outcome: str, summary: Summary) -> None:
        self.version = version
        self.outcome = outcome
        """``promoted``, ``rolled back``, or ``unloaded``."""
        self.summary = summary


class RolloutManager:
    """Tries versions beside the default versions of ``models``. All methods are called on the event loop."""

    def __init__(
        self, settings: Settings, models: Models, repository: Repository, opener: Opener | None = None
    ) -> None:
        """``opener`` opens the models in the process that shadows; by default, `open_backend` does."""
        self._settings = settings
        self._models = models
        self._repository = repository
        self._opener = opener or default_opener(settings)
        self._trials: dict[str, Trial] = {}
        self._ended: dict[str, Ended] = {}
        self._capture = Capture(settings, models.recorder, repository.failures) if settings.capture else None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin what the settings roll out, and follow the repository from now on.

        Raises:
            SettingsError: the folder for captured pictures cannot be written to.
        """
        if self._capture is not None:
            await self._capture.start()
        self._repository.on_commit = self._follow
        self._follow()

    def close(self) -> None:
        """End all comparisons; the answers go on as they are."""
        self._repository.on_commit = lambda: None
        self._models.observer = None
        for trial in self._trials.values():
            if trial.shadow is not None:
                trial.shadow.close()
        self._trials.clear()
        for task in self._tasks:
            task.cancel()
        if self._capture is not None:
            self._capture.close()

    def choose(self, model: Model, *, same_tensors: bool) -> Model:
        """See `service.inference.registry.Rollouts`."""
        trial = self._trials.get(model.name)
        if trial is None or trial.default is not model or not fits(trial, same_tensors=same_tensors):
            return model
        return trial.version if draw(trial) < trial.rollout.canary else model

    def observe(self, seen: Seen) -> None:
        """See `service.inference.registry.Rollouts`. It raises nothing, since the picture has its answer."""
        try:
            trial = self._trials.get(seen.model.name)
            # A shadow looks only once, so its corners are not compared with those of a second look.
            looked_again = seen.reliability is not None and seen.reliability.second_look
            is_live = trial is not None and seen.model is trial.default and not looked_again
            if trial is not None and is_live and trial.shadow is not None and random() < trial.rollout.shadow:  # noqa: S311
                self._offer(trial, trial.shadow, seen)
            if self._capture is not None:
                self._capture.consider(seen)
        except Exception as error:  # noqa: BLE001
            self._repository.failures.record("shadow", error)

    async def begin(self, name: str, rollout: Rollout) -> None:
        """Roll a version out, or change the shares and the rule of a rollout.

        Raises:
            ConflictError: the version is the default already.
            LoadFailedError: it cannot be loaded.
            ModelNotFoundError: there is no such model.
            NotReadyError: a worker failed or did not answer; nothing has changed.
        """
        default = self._models.find(name, None).version
        if default == rollout.version:
            raise ConflictError(f"{name}/{default} is the default version already; roll out another one")
        await self._repository.switch(name, Traffic(default, rollout), self._traffic(name))

    async def promote(self, name: str, version: int | None = None) -> None:
        """Make ``version``, by default the one that is rolled out, the default version. This ends the rollout.

        Raises:
            ConflictError: nothing is rolled out, and no version is named; or another version is rolled out.
            LoadFailedError: the version cannot be loaded.
            ModelNotFoundError: there is no such model.
            NotReadyError: a worker failed or did not answer; nothing has changed.
        """
        self._models.find(name, None)
        traffic = self._traffic(name)
        rollout = traffic.rollout if traffic is not None else None
        if version is None and rollout is None:
            raise ConflictError(f"nothing is rolled out for {name}; name the version to promote")
        if version is not None and rollout is not None and version != rollout.version:
            raise ConflictError(f"{name}/{rollout.version} is rolled out, not {version}; roll it back first")
        chosen = rollout.version if rollout is not None else version
        assert chosen is not None  # noqa: S101 - one of the two is there
        await self._repository.switch(name, self._steady(name, chosen), traffic)

    async def roll_back(self, name: str) -> None:
        """End a rollout; the default version stays.

        Raises:
            ConflictError: nothing is rolled out.
            ModelNotFoundError: there is no such model.
            NotReadyError: a worker failed or did not answer; nothing has changed.
        """
        self._models.find(name, None)
        traffic = self._traffic(name)
        if traffic is None or traffic.rollout is None:
            raise ConflictError(f"nothing is rolled out for {name}; there is nothing to roll back")
        await self._repository.switch(name, self._steady(name, traffic.default), traffic)

    def trial(self, name: str) -> Trial | None:
        """The present rollout of a model."""
        return self._trials.get(name)

    def ended(self, name: str) -> Ended | None:
        """The last rollout of a model that has ended in this process."""
        return self._ended.get(name)

    def gauges(self, worker: int) -> Counts:
        """The present geometry drift of all rollouts."""
        return {
            ("rollout_drift", name, str(trial.version.version), str(trial.default.version), quantity, str(worker)): [
                drift.distance
            ]
            for name, trial in self._trials.items()
            for quantity, drift in trial.comparison.drift().items()
        }

    def _traffic(self, name: str) -> Traffic | None:
        status = self._repository.statuses.get(name)
        return status.traffic if status is not None else None

    def _steady(self, name: str, version: int) -> Traffic | None:
        """The traffic with ``version`` as the default, and no rollout."""
        return None if self._models.usual_default(name) == version else Traffic(version)

    def _follow(self) -> None:
        """Begin and end trials as the repository has them now."""
        wanted = {
            name: status.traffic.rollout
            for name, status in self._repository.statuses.items()
            if status.traffic is not None and status.traffic.rollout is not None
        }
        for name in [name for name, trial in self._trials.items() if not self._goes_on(trial, wanted.get(name))]:
            self._end(self._trials.pop(name))
        for name, rollout in wanted.items():
            trial = self._trials.get(name)
            if trial is None:
                trial = self._trials[name] = self._begin(name, rollout)
            trial.rollout = rollout
            self._set_shadow(trial)
        self._models.divide(self, [name for name, trial in self._trials.items() if trial.rollout.canary])
        observes = self._capture is not None or any(trial.shadow is not None for trial in self._trials.values())
        self._models.observer = self if observes else None

    def _goes_on(self, trial: Trial, rollout: Rollout | None) -> bool:
        name = trial.default.name
        try:
            return rollout is not None and trial.is_same(
                rollout, self._models.find(name, None), self._models.find(name, rollout.version)
            )
        except ModelNotFoundError:
            return False

    def _begin(self, name: str, rollout: Rollout) -> Trial:
        default, version = self._models.find(name, None), self._models.find(name, rollout.version)
        metrics = self._models.recorder.of_rollout(name, version.version, default.version)
        log.info("rollout_began", model=name, default=default.version, **rollout_facts(rollout))
        return Trial(rollout, default, version, Comparison(default.manifest, version.manifest, metrics))

    def _end(self, trial: Trial) -> None:
        name, version = trial.version.name, trial.version.version
        if trial.shadow is not None:
            trial.shadow.close()
        try:
            default = self._models.find(name, None).version
            for each in (version, trial.default.version):
                self._models.find(name, each)
            outcome = {version: "promoted", trial.default.version: "rolled back"}.get(default, "unloaded")
        except ModelNotFoundError:
            outcome = "unloaded"
        summary = trial.comparison.summary()
        self._ended[name] = Ended(version, outcome, summary)
        log.info(
            "rollout_ended",
            model=name,
            version=version,
            outcome=outcome,
            pictures=summary.pictures,
            agreed=summary.agreed,
            corner_p95_px=summary.corners_px.p95 if summary.corners_px is not None else None,
        )

    def _set_shadow(self, trial: Trial) -> None:
        """Start or stop the shadow of a trial as its share asks for."""
        if trial.shadow is not None and not trial.rollout.shadow:
            trial.shadow.close()
            trial.shadow = None
        if trial.shadow is None and trial.rollout.shadow:
            settings, default, version = self._settings, trial.default, trial.version
            trial.shadow = Shadow(
                Job(
                    models=settings.models_folder,
                    name=default.name,
                    default=default.version,
                    default_digest=default.digest,
                    version=version.version,
                    version_digest=version.digest,
                    opener=self._opener,
                    limits=PictureLimits(settings.max_pixels, settings.max_side),
                ),
                Limits(settings.load_timeout_s, settings.inference_timeout_s),
                self._is_busy,
                lambda outcomes: self._note(trial, outcomes),
                trial.comparison.drop,
            )

    def _is_busy(self) -> bool:
        """Whether a live picture waits. Threads call it too."""
        return any(model.batcher.waiting or model.limiter.queued for model in self._models)

    def _offer(self, trial: Trial, shadow: Shadow, seen: Seen) -> None:
        """Have the shadow compare a picture."""
        default, version = trial.default.manifest, trial.version.manifest
        picture, output, upload = seen.picture, seen.output, seen.upload
        is_same = default.input == version.input
        if not is_same and upload is None:
            trial.comparison.drop("unlike")
            return
        file = upload.data if upload is not None else b""
        shown = Shown(
            pixels=picture.pixels.copy() if is_same else None,  # it may be a view into a large body
            file=b"" if is_same else file,
            part=picture.crop,
            turn=picture.turn,
            width=picture.shown.width,
            height=picture.shown.height,
            probabilities=class_probabilities(output.outputs, default)[output.row].copy(),
            theta=output.transforms[default.main].theta if output.transforms else None,
        )
        is_captured = self._capture is not None and picture.crop is None
        shadow.offer(Offer(shown, file if is_captured else b""))

    def _note(self, trial: Trial, outcomes: Sequence[tuple[Outcome, bytes]]) -> None:
        """Note what the shadow found."""
        if self._trials.get(trial.default.name) is not trial:  # it has ended meanwhile
            return
        for outcome, file in outcomes:
            if isinstance(outcome, Failed):
                trial.comparison.drop("failed")
                self._repository.failures.record("shadow", InferenceFailedError(outcome.reason))
                continue
            trial.comparison.add(outcome)
            label = outcome.default.label
            if (
                self._capture is not None
                and file
                and label is not None
                and outcome.default.names != outcome.version.names
            ):
                self._capture.take(file, trial.default.name, label)
        rule = trial.rollout.promote_when
        if rule is not None and not trial.promoting and monotonic() >= trial.next_check:
            trial.next_check = monotonic() + RULE_CHECK_S
            if trial.comparison.fulfils(rule):
                self._promote_by_rule(trial, rule)

    def _promote_by_rule(self, trial: Trial, rule: Rule) -> None:
        name, version = trial.version.name, trial.version.version
        log.info("rollout_fulfilled", model=name, version=version, **rule._asdict())
        trial.promoting = True
        task = asyncio.create_task(self._switch(trial, self._steady(name, version), self._traffic(name)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _switch(self, trial: Trial, traffic: Traffic | None, expected: Traffic | None) -> None:
        """Promote a version by its rule, unless its rollout is no longer as ``expected``."""
        name, version = trial.version.name, trial.version.version
        try:
            await self._repository.switch(name, traffic, expected)
        except ConflictError:  # another worker was faster, or somebody has rolled it back
            log.info("rollout_changed_meanwhile", model=name, version=version)
        except Exception as error:  # noqa: BLE001 - it is tried again
            self._repository.failures.record("promote", error, model=name)
        finally:
            trial.promoting = False


def fits(trial: Trial, *, same_tensors: bool) -> bool:
    """Whether the new version can answer instead of the default version."""
    default, version = trial.default.manifest, trial.version.manifest
    if trial.version.batcher.hangs or default.task != version.task:
        return False
    return not same_tensors or (default.image() == version.image() and default.answers() == version.answers())


def draw(trial: Trial) -> float:
    """Draw a number from 0 to 1: always the same for the same key, else for the same request id."""
    context = present()
    caller = context.key or context.id
    if not caller:
        return random()  # noqa: S311 - no secret
    text = f"{trial.version.name}/{trial.version.version} {caller}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()) / 2**56


def rollout_facts(rollout: Rollout) -> Mapping[str, object]:
    """What the log says of a rollout."""
    rule = rollout.promote_when
    return rollout._asdict() | {"promote_when": rule._asdict() if rule is not None else None}
