import socket

import pytest

from service.errors import AddressError
from service.server.listening import is_any_ipv6, listen, url_of
from service.settings import Settings

DUAL = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6")


@DUAL
@pytest.mark.parametrize("host", ["::", "0::0"])
def test_the_ipv6_wildcard_takes_ipv4_as_well(host: str) -> None:
    with listen(Settings(host=host, port=0)) as listener:
        port = listener.getsockname()[1]
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, port), timeout=5).close()
        assert url_of(listener) == f"http://[::]:{port}"


@DUAL
def test_an_address_of_ipv6_takes_that_alone() -> None:
    with listen(Settings(host="::1", port=0)) as listener:
        port = listener.getsockname()[1]
        socket.create_connection(("::1", port), timeout=5).close()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), timeout=5)


def test_the_ipv4_wildcard_is_announced_as_it_was_given() -> None:
    with listen(Settings(host="0.0.0.0", port=0)) as listener:
        assert url_of(listener) == f"http://0.0.0.0:{listener.getsockname()[1]}"


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "1:2"])
def test_an_address_that_is_not_ours_is_refused_in_one_line(host: str) -> None:
    with pytest.raises(AddressError, match="choose another --host or --port"):
        listen(Settings(host=host, port=0))


def test_only_the_wildcard_is_the_wildcard() -> None:
    assert [is_any_ipv6(host) for host in ("::", "::0", "::1", "0.0.0.0", "localhost")] == [
        True,
        True,
        False,
        False,
        False,
    ]
