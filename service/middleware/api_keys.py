"""API keys. The service knows only their hashes, and compares these in constant time.

A key has 256 random bits, so that a plain SHA-256 of it cannot be inverted. Slow hashes are for passwords.
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
"""The prefix of all keys, by which scanners for leaked secrets recognise one."""
ENTRY = re.compile(r"(?P<name>[\w.-]{1,64}):(?P<hash>[0-9a-f]{64})", re.ASCII)
USAGE = """usage: python -m service key NAME

Makes an API key for NAME: the key for the client, and the entry NAME:HASH for the service
(--api-keys, --api-keys-file, --admin-keys or --admin-keys-file). The key itself is not stored."""


class Key(NamedTuple):
    """A key as the service knows it."""

    name: str
    """The name of the client, which appears in logs."""
    hash: bytes


class Keys:
    """A set of keys. Several may have the same name, for example while a client changes to a new key."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = tuple(keys)
        self.hashes = frozenset(key.hash for key in self._keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def name_of(self, hashed: bytes) -> str | None:
        """Return the name of the key with this hash, or None, in constant time."""
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.hash, hashed):
                found = key.name
        return found


def hash_key(key: bytes) -> bytes:
    """Hash ``key``."""
    return sha256(key).digest()


def load_keys(setting: str, listed: str, file: str) -> Keys:
    """Read the keys in ``listed``, which errors call ``setting``, and in ``file``.

    Raises:
        SettingsError: an entry is wrong, or the file has none. Messages never quote an entry, which may be a key by
            mistake.
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
    """Parse ``lines`` of NAME:HASH. Blank lines and lines that begin with # are skipped.

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
    """Make a key and its entry for the service."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, f"{name}:{hash_key(key.encode()).hex()}"


def main(arguments: Sequence[str]) -> int:
    """Run ``python -m service key NAME``."""
    if list(arguments) in (["-h"], ["--help"]):
        print(USAGE)  # noqa: T201 - the command line's answer to its user
        return 0
    if len(arguments) != 1 or ENTRY.fullmatch(f"{arguments[0]}:{'0' * 64}") is None:
        print(f"error: the name of a key consists of letters, digits, '.', '_' and '-'\n{USAGE}", file=sys.stderr)  # noqa: T201
        return 1
    key, entry = make_key(arguments[0])
    print(f"key:   {key}\nentry: {entry}")  # noqa: T201
    return 0
