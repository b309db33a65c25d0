"""Rolls out a new version of a model beside its default version: /v2/repository/models/NAME/rollout."""

from typing import Annotated, Literal, Self

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, model_validator

from service.api.errors import OpenInferenceRoute, answer_errors
from service.api.open_inference.model_repository import BODY_ERRORS, NAME, PREFIX, Options, body_of, read
from service.api.open_inference.routes import failures
from service.errors import ConflictError, LoadFailedError, ModelNotFoundError, NotReadyError
from service.middleware.auth import Access, Requirement
from service.repository.traffic import Rollout, Rule
from service.rollout.comparison import ClassAgreement, Drift, Percentiles, Summary
from service.state import ServiceState

PATH = "/models/{name}/rollout"
CURE = "see docs/operate/rollout.md"
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
Bound = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Version = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$", examples=["3"])]


class RuleOptions(Options):
    """What a comparison has to show before the new version becomes the default by itself."""

    pictures: int = Field(ge=1, le=10**12, strict=True, description="least pictures that both versions have answered")
    agreement: Share = Field(0.995, description="least share of them with the same class")
    corner_p95_px: Bound | None = Field(
        None, description="most pixels of the upload by which 95 % of the pictures' corners may differ; null: any"
    )
    p99_ratio: Bound | None = Field(
        None, description="largest 99th percentile of the inference time, relative to the default's; null: any"
    )


class RolloutOptions(Options):
    """The body of a request: a version to roll out with its shares, or an action."""

    version: Version | None = Field(None, description="version to roll out or to promote")
    shadow: Share = Field(
        0.0, description="share of the default version's pictures that it answers too, for comparison alone"
    )
    canary: Share = Field(0.0, description="share of the callers that it answers instead")
    promote_when: RuleOptions | None = Field(None, description="rule by which it becomes the default; needs a shadow")
    action: Literal["promote", "rollback"] | None = Field(
        None, description="make the version the default, or end the rollout"
    )

    @model_validator(mode="after")
    def check(self) -> Self:
        """Reject combinations that mean nothing."""
        if self.action is not None:
            if self.model_fields_set - {"action", "version"} or (self.action == "rollback" and self.version):
                raise ValueError(f"action {self.action!r} goes with no such field; send it alone")
        elif self.version is None:
            raise ValueError("name a version to roll out, or an action: promote or rollback")
        elif not self.shadow and not self.canary:
            raise ValueError("give a shadow or a canary above 0; to end the rollout, send the action 'rollback'")
        elif self.promote_when is not None and not self.shadow:
            raise ValueError("promote_when needs a shadow, since only its pictures are compared")
        return self

    def rollout(self) -> Rollout:
        """Return the rollout that it asks for."""
        rule = None if self.promote_when is None else Rule(**self.promote_when.model_dump())
        return Rollout(int(self.version or 0), self.shadow, self.canary, rule)


class PercentilesInfo(BaseModel):
    """Percentiles of the latest pictures."""

    median: float
    p95: float
    p99: float


class ClassInfo(BaseModel):
    """The pictures of a class, by the default version."""

    pictures: int
    agreement: float


class DriftInfo(BaseModel):
    """How a quantity of the latest pictures differs between the versions."""

    default_mean: float
    version_mean: float
    distance: float = Field(description="population stability index; 0.1 and above has changed, 0.25 has shifted")


class ComparisonInfo(BaseModel):
    """What both versions said of the same pictures, in the process that answers."""

    pictures: int
    agreement: float | None = Field(description="share of pictures with the same class; null if there are none")
    classes: dict[str, ClassInfo] = Field(description="empty for sequences")
    probability_change: PercentilesInfo | None = Field(
        description="absolute change of the probability of the default version's class"
    )
    mean_probability_change: float | None
    corners_px: PercentilesInfo | None = Field(
        description="mean distance of the four corners in pixels of the upload, for a sequence those of the first "
        "object; null if a version has no corners"
    )
    geometry_drift: dict[str, DriftInfo] = Field(description="by quantity; empty while there are few pictures")
    default_inference_ms: PercentilesInfo | None = Field(description="processor time of one picture alone")
    version_inference_ms: PercentilesInfo | None
    dropped: dict[str, int] = Field(
        description="pictures that were not compared, by reason: busy, full, unlike, failed, hung, crashed"
    )


class PresentRollout(BaseModel):
    """A version that is being rolled out."""

    version: str
    shadow: float
    canary: float
    promote_when: RuleOptions | None
    trouble: str | None = Field(description="why the shadow does not compare at present; null if it does")
    comparison: ComparisonInfo


class PastRollout(BaseModel):
    """The last rollout that has ended in this process."""

    version: str
    outcome: Literal["promoted", "rolled back", "unloaded"]
    comparison: ComparisonInfo


class RolloutInfo(BaseModel):
    """The rollout of a model."""

    model: str
    default: str = Field(description="the default version")
    rollout: PresentRollout | None
    last: PastRollout | None


def create_rollout_routes(state: ServiceState) -> APIRouter:
    """Create the routes, each followed by its description; see `create_model_repository_routes`."""
    requirement = Requirement(state.policy, Access.ADMIN)
    described = APIRouter(
        prefix=PREFIX, tags=["repository"], route_class=OpenInferenceRoute, **state.policy.requirement(Access.ADMIN)
    )
    router = APIRouter()

    async def show(request: Request) -> Response:
        requirement.check(request.scope)
        return answer(state, request.path_params["name"])

    async def change(request: Request) -> Response:
        requirement.check(request.scope)
        name, options = request.path_params["name"], await read(request, RolloutOptions, CURE)
        version = None if options.version is None else int(options.version)
        if options.action == "promote":
            await state.rollouts.promote(name, version)
        elif options.action == "rollback":
            await state.rollouts.roll_back(name)
        else:
            await state.rollouts.begin(name, options.rollout())
        return answer(state, name)

    for endpoint, method in ((show, "GET"), (change, "POST")):
        router.add_route(PREFIX + PATH, answer_errors(endpoint, PREFIX), methods=[method], include_in_schema=False)

    @described.get(
        PATH,
        summary="What is rolled out, and how it compares",
        response_model=RolloutInfo,
        responses=failures(ModelNotFoundError, NotReadyError),
        openapi_extra=NAME,
    )
    def describe_show() -> None:
        """The comparison is that of the worker that answers; /metrics has the sums of all workers."""

    @described.post(
        PATH,
        summary="Roll a version out, promote it, or roll it back",
        response_model=RolloutInfo,
        responses=failures(ConflictError, LoadFailedError, ModelNotFoundError, *BODY_ERRORS),
        openapi_extra=NAME | body_of(RolloutOptions),
    )
    def describe_change() -> None:
        """All workers change together, between two requests. No Content-Type is required."""

    router.include_router(described)
    return router


def answer(state: ServiceState, name: str) -> Response:
    """Respond with the state of a model's rollout.

    Raises:
        ModelNotFoundError: there is no such model.
    """
    default = state.engine.models.find(name, None).version
    trial, ended = state.rollouts.trial(name), state.rollouts.ended(name)
    present = past = None
    if trial is not None:
        rollout = trial.rollout
        rule = rollout.promote_when
        present = PresentRollout(
            version=str(rollout.version),
            shadow=rollout.shadow,
            canary=rollout.canary,
            promote_when=None if rule is None else RuleOptions(**rule._asdict()),
            trouble=(trial.shadow.trouble or None) if trial.shadow is not None else None,
            comparison=describe(trial.comparison.summary()),
        )
    if ended is not None:
        past = PastRollout.model_validate(
            {"version": str(ended.version), "outcome": ended.outcome, "comparison": describe(ended.summary)}
        )
    info = RolloutInfo(model=name, default=str(default), rollout=present, last=past)
    return Response(info.model_dump_json(), media_type="application/json")


def describe(summary: Summary) -> ComparisonInfo:
    """Describe the state of a comparison."""
    return ComparisonInfo(
        pictures=summary.pictures,
        agreement=None if summary.agreed is None else summary.agreed / summary.classified,
        classes={label: describe_class(each) for label, each in summary.classes.items()},
        probability_change=describe_percentiles(summary.change),
        mean_probability_change=summary.mean_change,
        corners_px=describe_percentiles(summary.corners_px),
        geometry_drift={quantity: describe_drift(each) for quantity, each in summary.drift.items()},
        default_inference_ms=describe_percentiles(summary.default_ms),
        version_inference_ms=describe_percentiles(summary.version_ms),
        dropped=dict(summary.dropped),
    )


def describe_class(found: ClassAgreement) -> ClassInfo:
    """Describe the agreement of a class."""
    return ClassInfo(pictures=found.pictures, agreement=found.agreed / found.pictures)


def describe_percentiles(found: Percentiles | None) -> PercentilesInfo | None:
    """Describe percentiles, if there are any."""
    return None if found is None else PercentilesInfo(**found._asdict())


def describe_drift(found: Drift) -> DriftInfo:
    """Describe the drift of a quantity."""
    return DriftInfo(**found._asdict())
