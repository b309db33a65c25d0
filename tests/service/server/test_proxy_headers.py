"""The client of a request behind proxies, compared with uvicorn's middleware where that is strict enough."""

import asyncio
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.errors import SettingsError
from service.server.proxy_headers import TrustedProxies
from tests.service.loops import on_a_loop
from tests.service.server.connections import Line

PEER = ("10.0.0.1", 4321)
FORWARDED = [
    "203.0.113.5",
    "203.0.113.5:80",
    "[2001:db8::1]:80",
    "2001:db8::1",
    "198.51.100.1, 203.0.113.5, 10.0.0.2",
    "10.0.0.3, 10.0.0.2",
    "  203.0.113.5  ",
]


def by_uvicorn(allowed: str, headers: list[tuple[bytes, bytes]]) -> tuple[Any, str]:
    scope: dict[str, Any] = {"type": "http", "client": PEER, "scheme": "http", "headers": headers}

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    middleware = ProxyHeadersMiddleware(app, allowed)
    asyncio.run(middleware(scope, None, None))  # type: ignore[arg-type]
    return tuple(scope["client"]), scope["scheme"]


@pytest.mark.parametrize("allowed", ["10.0.0.0/8", "10.0.0.1", "127.0.0.1", "*"])
@pytest.mark.parametrize("forwarded", FORWARDED)
def test_the_client_is_the_one_that_uvicorn_finds(forwarded: str, allowed: str) -> None:
    headers = [(b"x-forwarded-for", forwarded.encode()), (b"x-forwarded-proto", b"https")]
    assert TrustedProxies(allowed).resolve(PEER, "http", headers) == by_uvicorn(allowed, headers)


def test_nobody_is_believed_unless_it_is_said() -> None:
    headers = [(b"x-forwarded-for", b"203.0.113.5"), (b"x-forwarded-proto", b"https")]
    assert TrustedProxies("").resolve(PEER, "http", headers) == (PEER, "http")


@pytest.mark.parametrize("forwarded", [b"", b"unknown", b'"><script>', b"203.0.113.5, nonsense", b"1.2.3", b"\xff"])
def test_what_is_no_address_is_never_taken_for_one(forwarded: bytes) -> None:
    assert TrustedProxies("10.0.0.1").resolve(PEER, "http", [(b"x-forwarded-for", forwarded)]) == (PEER, "http")


def test_several_headers_are_one_list_and_a_strange_scheme_is_ignored() -> None:
    headers = [
        (b"x-forwarded-for", b"198.51.100.1"),
        (b"x-forwarded-for", b"203.0.113.5"),
        (b"x-forwarded-proto", b"gopher"),
    ]
    assert TrustedProxies("10.0.0.1").resolve(PEER, "http", headers) == (("203.0.113.5", 0), "http")


@pytest.mark.parametrize("allowed", ["proxy.example", "10.0.0.0/33", "10.0.0.1;10.0.0.2"])
def test_a_proxy_that_is_no_address_is_refused_with_an_example(allowed: str) -> None:
    with pytest.raises(SettingsError, match=r"10\.0\.0\.0/8"):
        TrustedProxies(allowed)


@on_a_loop
async def test_the_application_is_told_the_client_and_the_scheme() -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    line = Line(app, proxies=TrustedProxies("127.0.0.1"))
    await line.ask(b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.5\r\nX-Forwarded-Proto: https\r\n\r\n")
    assert (scopes[0]["client"], scopes[0]["scheme"]) == (("203.0.113.5", 0), "https")
