"""The client's address and scheme, where a trusted proxy names them in X-Forwarded-For and X-Forwarded-Proto."""

import asyncio
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from service.errors import SettingsError

Address = tuple[str, int]
EVERYBODY = "*"
SCHEMES = ("http", "https")
MAX_HOPS = 100
"""Entries of X-Forwarded-For that are looked at, from the last one."""


class TrustedProxies:
    """The proxies that are believed."""

    def __init__(self, allowed: str) -> None:
        """``allowed`` names addresses and networks, separated by commas; ``*`` trusts everybody, empty nobody.

        Raises:
            SettingsError: one of them is neither.
        """
        self._trusts_all = allowed.strip() == EVERYBODY
        self._networks: list[IPv4Network | IPv6Network] = []
        for item in () if self._trusts_all else filter(None, map(str.strip, allowed.split(","))):
            try:
                self._networks.append(ip_network(item, strict=False))
            except ValueError as error:
                raise SettingsError(
                    f"--forwarded-allow-ips: {item!r} is not an address, a network like 10.0.0.0/8, or * for all"
                ) from error
        self.trusts = lru_cache(maxsize=1024)(self._trusts)
        """Whether a host may say whom it speaks for."""

    def _trusts(self, host: str) -> bool:
        if self._trusts_all:
            return True
        address = ip_address(host)
        return any(address in network for network in self._networks)

    def resolve(
        self, peer: Address | None, scheme: str, headers: Iterable[tuple[bytes, bytes]]
    ) -> tuple[Address | None, str]:
        """Return the client and the scheme of a request that came from ``peer``.

        Each proxy appends the address that it was called from, so the client is the last entry that no trusted proxy
        stands for; entries before it may be invented.
        """
        if peer is None or not self.trusts(peer[0]):
            return peer, scheme
        hops: list[str] = []
        for name, value in headers:
            if name == b"x-forwarded-for":
                hops += value.decode("latin-1").split(",")
            elif name == b"x-forwarded-proto" and (given := value.decode("latin-1").strip().lower()) in SCHEMES:
                scheme = given
        client = peer
        addresses = [split_address(hop.strip()) for hop in hops[-MAX_HOPS:]]
        if self._trusts_all:
            return next((address for address in addresses if address is not None), peer), scheme
        for address in reversed(addresses):
            if address is None:
                break  # what lies before an entry that cannot be read is not to be believed
            client = address
            if not self.trusts(address[0]):
                break
        return client, scheme


def split_address(text: str) -> Address | None:
    """``1.2.3.4``, ``1.2.3.4:5``, ``::1`` or ``[::1]:5`` as address and port; None if it is none of them."""
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        return plain_host(host), int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    except ValueError:
        return None


def plain_host(host: str) -> str:
    """``host`` in its usual spelling; an IPv4 address that came over IPv6 (``::ffff:1.2.3.4``) as the former.

    Raises:
        ValueError: ``host`` is no address.
    """
    address = ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def address_of(transport: asyncio.BaseTransport, end: str) -> Address | None:
    """The address of one end of a connection, if it has one: a Unix socket has none."""
    name = transport.get_extra_info(end)
    return (plain_host(name[0].partition("%")[0]), name[1]) if isinstance(name, tuple) else None
