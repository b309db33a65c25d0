"""The two clients: they differ in ``await`` alone."""

import asyncio
import re
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self, Unpack

import httpx
from httpx_retries import Retry, RetryTransport

from service import __version__
from service.client import calls
from service.client.calls import AnswerType, Call, Options, Picture
from service.client.errors import BusyError, ClientError, UnreachableError
from service.schemas import ErrorBody, ModelInfo, Prediction

URL = "http://127.0.0.1:8000"
TIMEOUT_S = 30.0
RETRIES = 8
PATIENCE_S = 30.0
FIRST_PAUSE_S = 0.25
VISIBLE = re.compile(r"[!-~]+")
ONCE = {"retry": Retry(total=0)}
"""For a question whose answer may well be 503."""


def connection(url: str, key: str | None, timeout_s: float, retries: int, patience_s: float) -> dict[str, Any]:
    """The arguments of an httpx client that asks again: after 429 and 503, and when a connection breaks.

    Nothing that is asked changes the service, so asking twice does no harm. Each pause is as long as ``Retry-After``
    says, or doubles from half a second, less a random part; all of them together end after ``patience_s``.

    Raises:
        ClientError: ``key`` cannot be one.
    """
    if key is not None and not VISIBLE.fullmatch(key):
        raise ClientError("that is no API key: it is empty, or has other than visible ASCII characters")
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
        "timeout": httpx.Timeout(timeout_s, pool=None),  # waiting for a free connection is no silence of the service
        "transport": RetryTransport(retry=retry),
    }


def unreachable(url: httpx.URL, error: httpx.HTTPError | httpx.InvalidURL) -> UnreachableError:
    """What is said when nothing answered."""
    if isinstance(error, httpx.TimeoutException):
        return UnreachableError(f"{url} did not answer in time; give it a longer timeout, or look at its load")
    return UnreachableError(f"cannot reach {url}: {error}; is the service running there?")


class Client:
    """Asks a service, and waits for the answer. Threads may share one; proxies of the environment are not used.

    Args:
        url: where the service is, with the path in front of it if a gateway adds one.
        key: its API key, if it wants one.
        timeout_s: longest silence during one try.
        retries: how often to ask again after 429, 503 and broken connections.
        patience_s: longest time to wait for that altogether, whatever ``Retry-After`` says; 0 never asks again.

    Every method raises `service.client.errors.ClientError`, by kind.
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
        self._http = httpx.Client(**connection(url, key, timeout_s, retries, patience_s))

    def predict(self, picture: Picture, **options: Unpack[Options]) -> Prediction:
        """What ``picture`` shows, and where in it the model looked."""
        return self._ask(calls.predict(picture, options))

    def predict_batch(self, pictures: Iterable[Picture], **options: Unpack[Options]) -> list[Prediction | ErrorBody]:
        """An answer or an error for each picture, in their order."""
        return self._ask(calls.predict_batch(pictures, options)).results

    def models(self) -> list[ModelInfo]:
        """Every version of every model that is served."""
        return self._ask(calls.models()).models

    def ready(self) -> bool:
        """Whether the service is ready; a service that is not is not asked again."""
        try:
            self._ask(calls.ready(), extensions=ONCE)
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

    def _ask(self, call: Call[AnswerType], **request: Any) -> AnswerType:
        try:
            response = self._http.request(call.method, call.path, **call.request, **request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise unreachable(self._http.base_url, error) from error
        return calls.understand(call, response)


class AsyncClient:
    """`Client` for programs that ``await``."""

    def __init__(
        self,
        url: str = URL,
        *,
        key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._http = httpx.AsyncClient(**connection(url, key, timeout_s, retries, patience_s))

    async def predict(self, picture: Picture, **options: Unpack[Options]) -> Prediction:
        """What ``picture`` shows, and where in it the model looked."""
        return await self._ask(await asyncio.to_thread(calls.predict, picture, options))

    async def predict_batch(
        self, pictures: Iterable[Picture], **options: Unpack[Options]
    ) -> list[Prediction | ErrorBody]:
        """An answer or an error for each picture, in their order."""
        return (await self._ask(await asyncio.to_thread(calls.predict_batch, pictures, options))).results

    async def models(self) -> list[ModelInfo]:
        """Every version of every model that is served."""
        return (await self._ask(calls.models())).models

    async def ready(self) -> bool:
        """Whether the service is ready; a service that is not is not asked again."""
        try:
            await self._ask(calls.ready(), extensions=ONCE)
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

    async def _ask(self, call: Call[AnswerType], **request: Any) -> AnswerType:
        try:
            response = await self._http.request(call.method, call.path, **call.request, **request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise unreachable(self._http.base_url, error) from error
        return calls.understand(call, response)
