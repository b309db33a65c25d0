"""API keys: made here, given to the service as hashes alone, and recognised in constant time.

A key is 256 random bits, so that a plain SHA-256 of it cannot be turned back or guessed; slow hashes are for passwords.
"""

import hmac
import re
import secrets
import sys
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from service.errors import SettingsError

PREFIX = "stn_"
"""How all keys begin, so that scanners for leaked secrets know one."""
ENTRY = re.compile(r"(?P<name>[\w.-]{1,64}):(?P<hash>[0-9a-f]{64})", re.ASCII)
USAGE = """usage: python -m service key NAME

Makes an API key for NAME: the key for the client, and the entry NAME:HASH for the service
(--api-keys, --api-keys-file, --admin-keys or --admin-keys-file). The key itself is kept nowhere."""


class Key(NamedTuple):
    """What the service knows of a key."""

    name: str
    """Whose it is; this is what logs say."""
    hash: bytes


class Keys:
    """Some keys; several may have the same name, as an old and a new one do while clients change over."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = tuple(keys)
        self.hashes = frozenset(key.hash for key in self._keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def owner(self, hashed: bytes) -> str | None:
        """The name of the key with this hash, if it is one of these; takes as long for any."""
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.hash, hashed):
                found = key.name
        return found


def hash_key(key: bytes) -> bytes:
    """What is kept of ``key``."""
    return sha256(key).digest()


def load_keys(setting: str, listed: str, file: str) -> Keys:
    """The keys that are ``listed`` and those in ``file``; ``setting`` is what errors call the first.

    Raises:
        SettingsError: an entry is wrong, or there is a file without any. Messages never quote what was given: it may be
            a key that somebody mistook for its hash.
    """
    keys = parse(listed.replace(",", "\n").splitlines(), f"--{setting}")
    if file:
        try:
            lines = Path(file).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise SettingsError(f"--{setting}-file {file} cannot be read: {reason}") from error
        from_file = parse(lines, file)
        if not from_file:
            raise SettingsError(f"there is no key in {file}; make one with: python -m service key NAME")
        keys += from_file
    return Keys(keys)


def parse(lines: Sequence[str], where: str) -> list[Key]:
    """The keys in ``lines`` of NAME:HASH; blank ones and those that begin with # are none.

    Raises:
        SettingsError: an entry is wrong.
    """
    keys = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        entry = ENTRY.fullmatch(line)
        if entry is None:
            raise SettingsError(f"entry {number} of {where} is not NAME:HASH; make one: python -m service key NAME")
        keys.append(Key(entry["name"], bytes.fromhex(entry["hash"])))
    return keys


def make_key(name: str) -> tuple[str, str]:
    """A new key, and its entry for the service."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, f"{name}:{hash_key(key.encode()).hex()}"


def main(arguments: Sequence[str]) -> int:
    """``python -m service key NAME``."""
    if list(arguments) in (["-h"], ["--help"]):
        print(USAGE)  # noqa: T201 - the command line's answer to its user
        return 0
    if len(arguments) != 1 or ENTRY.fullmatch(f"{arguments[0]}:{'0' * 64}") is None:
        print(f"error: say whose key it is, in letters, digits, '.', '_' and '-'\n{USAGE}", file=sys.stderr)  # noqa: T201
        return 1
    key, entry = make_key(arguments[0])
    print(f"key:   {key}\nentry: {entry}")  # noqa: T201
    return 0
