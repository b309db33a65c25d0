"""POST /rectify: the rectified picture itself, as an ASGI endpoint of the router.

It is not on the fast path, since sampling and encoding take much longer than ASGI.
"""

from collections.abc import Awaitable, Sequence
from typing import Final
from urllib.parse import quote

from starlette.routing import Route
from starlette.types import Scope

from imaging.encoding import FileFormat
from imaging.errors import ImageError
from imaging.formats.signatures import identify
from service.api.accept import choose_type
from service.api.predict import Endpoint, Predict, images_of, rectified_options, wanted_views
from service.api.prediction_json import describe_reliability
from service.api.request_body import Body
from service.errors import InvalidParameterError
from service.inference.engine import Answer
from service.inference.outputs import angle, corners
from service.inference.preprocessing import Upload
from service.inference.rectified.options import RectifiedOptions
from service.inference.registry import Model
from service.middleware.auth import Access, Requirement
from service.responses import Header, RawResponse, to_bytes
from service.schemas.options import RectifyOptions
from service.state import ServiceState

PATH = "/rectify"
TYPES: Final[dict[FileFormat, str]] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
JSON = "application/json"
SAME_FORMAT: Final[dict[str, FileFormat]] = {
    "JPEG": "jpeg",
    "HEIF": "jpeg",
    "AVIF": "webp",
    "WEBP": "webp",
}
"""The format of the answer to pictures of these formats, unless another is requested. Others are answered with PNG."""
MAX_LABEL = 200
"""Characters of a class in a header."""
VISIBLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


class Rectify:
    """Answers the route."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state
        self._predict = Predict(state)

    async def answer(self, query: bytes, body: Body) -> RawResponse:
        """Answer a request for one picture.

        Raises:
            RequestError: there is no rectified picture.
            ClientDisconnect: the client has disconnected.
        """

        async def respond(model: Model, upload: Upload, options: RectifyOptions, timeout_ms: int) -> RawResponse:
            offered = offer(upload, options)
            chosen = choose_type(body.headers, [*(TYPES[each] for each in offered), JSON])
            if chosen == JSON:
                images = images_of(model, options)
                wanted = rectified_options(options, offered[0], images, self._state.settings)
                return await self._predict.describe(model, upload, options, wanted, timeout_ms)
            picture_format = next(each for each, media_type in TYPES.items() if media_type == chosen)
            if picture_format == "jpeg" and options.padding == "transparent":
                raise InvalidParameterError("padding: JPEG files cannot be transparent; accept image/png or image/webp")
            wanted = rectified_options(options, picture_format, 1, self._state.settings)
            assert wanted is not None  # noqa: S101 - there is a format
            main_only = wanted.of_main(model.manifest)  # which tells it from JSON in the cache too

            async def sample() -> RawResponse:
                answer = await self._predict_main(model, upload, options, main_only, timeout_ms)
                assert answer.rectified is not None  # noqa: S101
                main = answer.rectified[0 if len(answer.rectified) == 1 else model.manifest.main]
                return RawResponse(main.content, ((b"content-type", chosen.encode()), *describe_in_headers(answer)))

            return await self._predict.remember(sample, model, upload, options, main_only)

        return await self._predict.answer_with(respond, RectifyOptions, query, body)

    async def _predict_main(
        self, model: Model, upload: Upload, options: RectifyOptions, wanted: RectifiedOptions, timeout_ms: int
    ) -> Answer:
        """The prediction for the picture, or for its region."""
        engine, views = self._state.engine, wanted_views(options)
        if not options.region:
            return await engine.predict(model, upload, wanted, timeout_ms, views, options.angle_hint)
        if len(options.region) > 1:
            raise InvalidParameterError(
                f"region: {len(options.region)} regions do not fit into one picture; ask for one, or accept {JSON}"
            )
        (answer,) = await engine.predict_regions(
            model, upload, options.region, wanted, timeout_ms, views, options.angle_hint
        )
        return answer


def offer(upload: Upload, options: RectifyOptions) -> Sequence[FileFormat]:
    """Return the formats of the answer, the one to prefer first."""
    if options.rectified is not None:
        return (options.rectified,)
    try:
        preferred = SAME_FORMAT.get(identify(upload.data), "png")
    except ImageError:  # the answer will say so
        preferred = "png"
    if preferred == "jpeg" and options.padding == "transparent":
        preferred = "png"
    return sorted(TYPES, key=lambda each: each != preferred)


def describe_in_headers(answer: Answer) -> tuple[Header, ...]:
    """The result beside the picture, see `service.api.routes`."""
    main = answer.in_picture.transforms[answer.model.manifest.main]
    outline = corners(main.region, answer.width, answer.height)
    rounded = [[round(x, 2), round(y, 2)] for x, y in outline]
    return (
        (b"vary", b"Accept"),
        (b"x-model", f"{answer.model.name}/{answer.model.version}".encode()),
        (b"x-class", quote(answer.label[:MAX_LABEL], safe=VISIBLE).encode()),
        (b"x-class-index", b"%d" % int(answer.output.ranking[0])),
        (b"x-probability", b"%.6f" % answer.probability),
        (b"x-angle", b"%.2f" % angle(main.theta, answer.width, answer.height)),
        (b"x-corners", to_bytes(rounded)),
        *(((b"x-reliability", to_bytes(describe_reliability(answer.reliability))),) if answer.reliability else ()),
    )


def create_rectify_route(state: ServiceState) -> Route:
    """Create the route, without its description."""
    rectify = Rectify(state)

    def answer(scope: Scope, body: Body) -> Awaitable[RawResponse]:
        return rectify.answer(scope["query_string"], body)

    endpoint = Endpoint(PATH, answer, Requirement(state.policy, Access.USER))
    return Route(PATH, endpoint, methods=["POST"], include_in_schema=False)
