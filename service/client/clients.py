"""The synchronous and the asynchronous client."""

import asyncio
import re
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, Self, Unpack

import httpx
from httpx_retries import Retry, RetryTransport

from service import __version__
from service.client import calls
from service.client.calls import AnswerType, Call, Options, Picture, RectifyOptions, Region, StreamOptions
from service.client.errors import BusyError, ClientError, UnreachableError
from service.client.rectified import RectifiedPicture
from service.client.streams import AsyncStream, Stream, open_async_stream, open_stream
from service.schemas.answers import ErrorBody, Prediction
from service.schemas.models import ModelInfo

URL = "http://127.0.0.1:8000"
TIMEOUT_S = 30.0
RETRIES = 8
PATIENCE_S = 30.0
FIRST_PAUSE_S = 0.25
VISIBLE = re.compile(r"[!-~]+")
ONCE = {"retry": Retry(total=0)}
"""Options of a request that is not retried."""


def connection(url: str, key: str | None, timeout_s: float, retries: int, patience_s: float) -> dict[str, Any]:
    """Make the arguments of an httpx client that retries after 429, 503 and broken connections.

    No request changes the service, so that retries are safe. Each pause is that of ``Retry-After``, or doubles from
    half a second with a random part. All pauses together last at most ``patience_s``.

    Raises:
        ClientError: ``key`` has an invalid form.
    """
    if key is not None and not VISIBLE.fullmatch(key):
        raise ClientError("this is not an API key: it is empty, or has other than visible ASCII characters")
    retry = Retry(
        total=retries if patience_s > 0 else 0,
        total_timeout=patience_s if patience_s > 0 else None,
        max_backoff_wait=patience_s if patience_s > 0 else 1,
        allowed_methods=["GET", "POST"],
        status_forcelist=calls.BUSY,
        retry_on_exceptions=[httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError],
        backoff_factor=FIRST_PAUSE_S,
    )
    authorization = {} if key is None else {"Authorization": f"Bearer {key}"}
    return {
        "base_url": url,
        "headers": {"User-Agent": f"stn-serve/{__version__}"} | authorization,
        "timeout": httpx.Timeout(timeout_s, pool=None),  # waiting for a free connection does not count
        "transport": RetryTransport(retry=retry),
    }


def unreachable(url: httpx.URL, error: httpx.HTTPError | httpx.InvalidURL) -> UnreachableError:
    """Make the error for a request without a response."""
    if isinstance(error, httpx.TimeoutException):
        return UnreachableError(f"{url} did not answer in time; allow a longer timeout, or check its load")
    return UnreachableError(f"cannot reach {url}: {error}; is the service running there?")


class Client:
    """A synchronous client, which threads may share. It ignores the proxies of the environment.

    Args:
        url: the address of the service, including the path prefix of a gateway.
        key: the API key, if the service requires one.
        timeout_s: longest silence during one attempt.
        retries: number of retries after 429, 503 and broken connections.
        patience_s: longest total time of the pauses, regardless of ``Retry-After``; 0 disables retries.

    Every method may raise a `service.client.errors.ClientError`.
    """

    def __init__(
        self,
        url: str = URL,
        *,
        key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._timeout_s = timeout_s
        self._http = httpx.Client(**connection(url, key, timeout_s, retries, patience_s))

    def predict(self, picture: Picture, **options: Unpack[Options]) -> Prediction:
        """Predict one picture."""
        return self._send(calls.predict(picture, options))

    def predict_regions(
        self, picture: Picture, regions: Iterable[Region], **options: Unpack[Options]
    ) -> list[Prediction]:
        """Predict each of ``regions`` of one picture, which the service decodes once."""
        return self._send(calls.predict_regions(picture, regions, options)).regions

    def stream(self, **options: Unpack[StreamOptions]) -> AbstractContextManager[Stream]:
        """Open a stream of frames, of which the newest is answered. It is not opened again after an interruption."""
        return open_stream(self._http.base_url, self._http.headers, self._timeout_s, options)

    def rectify(self, picture: Picture, **options: Unpack[RectifyOptions]) -> RectifiedPicture:
        """Return the rectified picture itself, by default in the resolution and format of ``picture``."""
        return self._send(calls.rectify(picture, options))

    def predict_batch(self, pictures: Iterable[Picture], **options: Unpack[Options]) -> list[Prediction | ErrorBody]:
        """Return a prediction or an error for each picture in order."""
        return self._send(calls.predict_batch(pictures, options)).results

    def models(self) -> list[ModelInfo]:
        """List the served versions of all models."""
        return self._send(calls.models()).models

    def ready(self) -> bool:
        """Whether the service is ready. There are no retries."""
        try:
            self._send(calls.ready(), extensions=ONCE)
        except BusyError:
            return False
        return True

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _send(self, call: Call[AnswerType], **request: Any) -> AnswerType:
        try:
            response = self._http.request(call.method, call.path, **call.request, **request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise unreachable(self._http.base_url, error) from error
        return calls.read_answer(call, response)


class AsyncClient:
    """The asynchronous `Client`."""

    def __init__(
        self,
        url: str = URL,
        *,
        key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(**connection(url, key, timeout_s, retries, patience_s))

    async def predict(self, picture: Picture, **options: Unpack[Options]) -> Prediction:
        """Predict one picture."""
        return await self._send(await asyncio.to_thread(calls.predict, picture, options))

    async def predict_regions(
        self, picture: Picture, regions: Iterable[Region], **options: Unpack[Options]
    ) -> list[Prediction]:
        """Predict each of ``regions`` of one picture, which the service decodes once."""
        return (await self._send(await asyncio.to_thread(calls.predict_regions, picture, regions, options))).regions

    def stream(self, **options: Unpack[StreamOptions]) -> AbstractAsyncContextManager[AsyncStream]:
        """Open a stream of frames, of which the newest is answered. It is not opened again after an interruption."""
        return open_async_stream(self._http.base_url, self._http.headers, self._timeout_s, options)

    async def rectify(self, picture: Picture, **options: Unpack[RectifyOptions]) -> RectifiedPicture:
        """Return the rectified picture itself, by default in the resolution and format of ``picture``."""
        return await self._send(await asyncio.to_thread(calls.rectify, picture, options))

    async def predict_batch(
        self, pictures: Iterable[Picture], **options: Unpack[Options]
    ) -> list[Prediction | ErrorBody]:
        """Return a prediction or an error for each picture in order."""
        return (await self._send(await asyncio.to_thread(calls.predict_batch, pictures, options))).results

    async def models(self) -> list[ModelInfo]:
        """List the served versions of all models."""
        return (await self._send(calls.models())).models

    async def ready(self) -> bool:
        """Whether the service is ready. There are no retries."""
        try:
            await self._send(calls.ready(), extensions=ONCE)
        except BusyError:
            return False
        return True

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, call: Call[AnswerType], **request: Any) -> AnswerType:
        try:
            response = await self._http.request(call.method, call.path, **call.request, **request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise unreachable(self._http.base_url, error) from error
        return calls.read_answer(call, response)
