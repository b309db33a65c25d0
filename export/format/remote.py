"""Models at a URL, laid out as NAME/VERSION like a models folder. fsspec reads and writes it.

fsspec knows ``https://`` (to read), ``s3://``, ``gs://``, ``az://``, ``hf://`` and others. Each library
finds its credentials where it always does. fsspec is imported only when there is a URL.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from export.format.artifact import LARGEST_MANIFEST, MANIFEST, NAME, SIGNATURE, VERSION, record
from export.format.errors import ArtifactError
from export.format.manifest import FileRecord
from export.format.reading import read_manifest

FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
CHAIN: Final = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*://)")
"""Between the URLs of a chain; an IPv6 address has two colons too."""
LARGEST_SIGNATURE: Final = 2**20
REVISIONS: Final = ("ETag", "etag", "mtime", "LastModified", "last_modified", "generation", "blob_id", "content_md5")
"""What file systems state of a file that changes with its content."""


class RemoteError(ArtifactError):
    """Models at a URL cannot be read or written."""


class RemoteVersion(NamedTuple):
    """A version of a model at a URL."""

    paths: Mapping[str, str]
    """The path of each file by its name."""
    revision: str
    """Changes with the manifest and the signature; empty if the file system states nothing of the kind."""


class RemoteModels:
    """The models at a URL."""

    def __init__(self, url: str) -> None:
        """Open the URL; nothing is read yet.

        Raises:
            RemoteError: the package that reads such URLs is missing.
        """
        self.url = public_url(url)
        try:
            from fsspec.core import url_to_fs

            self._files, self._root = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        except (ImportError, ValueError) as error:
            raise RemoteError(
                f"{self.url} cannot be opened: {describe(error)}; pip install 'stn-serve[remote]', and the package of "
                "fsspec for such URLs, like s3fs"
            ) from error
        except Exception as error:  # some file systems connect at once
            raise RemoteError(f"{self.url} cannot be opened: {describe(error)}") from error

    def versions(self) -> dict[tuple[str, int], RemoteVersion]:
        """Return all versions that have a manifest, sorted.

        Raises:
            RemoteError: the URL cannot be listed.
        """
        versions = {}
        try:
            self._files.invalidate_cache()
            try:
                models = list(self._entries(self._root, NAME))
            except FileNotFoundError:
                return {}
            for name, model in models:
                for version, folder in self._entries(model["name"], VERSION):
                    files = dict(self._entries(folder["name"], FILE))
                    if MANIFEST in files:
                        versions[name, int(version)] = to_version(files)
        except Exception as error:
            raise RemoteError(f"{self.url} cannot be listed: {describe(error)}") from error
        return dict(sorted(versions.items()))

    def _entries(self, folder: str, pattern: re.Pattern[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield name and information of what a folder holds; one that cannot be listed is an error, not empty.

        ``find`` of fsspec leaves out what it cannot list, as if it had been deleted.
        """
        for entry in self._files.ls(folder, detail=True):
            name = entry["name"].rstrip("/").rpartition("/")[2]
            if pattern.fullmatch(name) and entry["name"].rstrip("/") != folder.rstrip("/"):
                yield name, entry

    def head(self, version: RemoteVersion) -> dict[str, bytes]:
        """Read the manifest, and the signature if there is one. They change with every other file.

        Raises:
            RemoteError: one cannot be read.
        """
        head = {MANIFEST: self._read(version, MANIFEST, LARGEST_MANIFEST)}
        if SIGNATURE in version.paths:
            head[SIGNATURE] = self._read(version, SIGNATURE, LARGEST_SIGNATURE)
        return head

    def rest(self, version: RemoteVersion, head: Mapping[str, bytes]) -> dict[str, bytes]:
        """Read and verify the files that the manifest in ``head`` lists.

        Raises:
            ArtifactError: one cannot be read, is not what the manifest says, or the manifest is damaged.
        """
        manifest = read_manifest(head[MANIFEST], public_url(version.paths[MANIFEST]))
        return {name: self._read_recorded(version, name, expected) for name, expected in manifest.files.items()}

    def write(self, name: str, version: int, files: Mapping[str, bytes]) -> None:
        """Write a version and read it again.

        The manifest is written last. Until then, a reader finds no version, or files that an old manifest does not
        list, and keeps the copy that it has.

        Raises:
            RemoteError: a file cannot be written, or reads differently afterwards.
        """
        folder = f"{self._root.rstrip('/')}/{name}/{version}"
        order = sorted(files, key=lambda file: file == MANIFEST)
        try:
            if SIGNATURE not in files and self._files.exists(f"{folder}/{SIGNATURE}"):
                self._files.rm(f"{folder}/{SIGNATURE}")
            self._files.makedirs(folder, exist_ok=True)
            for file in order:
                self._files.pipe_file(f"{folder}/{file}", files[file])
            different = [file for file in order if self._files.cat_file(f"{folder}/{file}") != files[file]]
        except Exception as error:
            raise RemoteError(f"{self.url} cannot be written: {describe(error)}") from error
        if different:
            raise RemoteError(f"{', '.join(different)} at {self.url} read differently than written; push again")

    def _read_recorded(self, version: RemoteVersion, name: str, expected: FileRecord) -> bytes:
        content = self._read(version, name, expected.bytes)
        if record(content) != expected:
            raise RemoteError(
                f"{public_url(version.paths[name])} is not the file that its manifest lists; push it again"
            )
        return content

    def _read(self, version: RemoteVersion, name: str, most: int) -> bytes:
        """Return the content of a file of at most ``most`` bytes."""
        path = version.paths.get(name)
        if path is None:
            raise RemoteError(f"{name} is missing beside {public_url(version.paths[MANIFEST])}; push the version again")
        try:
            with self._files.open(path, "rb") as file:
                content = b""
                while len(content) <= most and (part := file.read(most + 1 - len(content))):  # streams read less
                    content += part
        except Exception as error:
            raise RemoteError(f"{public_url(path)} cannot be read: {describe(error)}") from error
        if len(content) > most:
            raise RemoteError(f"{public_url(path)} is larger than the {most:,} bytes expected; push the version again")
        return content


def to_version(files: Mapping[str, Mapping[str, Any]]) -> RemoteVersion:
    """Return the version with these files; for each, what the file system states of it."""
    stated = [
        " ".join(f"{key}={files[name][key]}" for key in REVISIONS if files[name].get(key) is not None)
        for name in (MANIFEST, SIGNATURE)
        if name in files
    ]
    paths = {name: entry["name"] for name, entry in files.items()}
    return RemoteVersion(paths, "\n".join(stated) if all(stated) else "")


def listed_sizes(manifest: bytes, source: str) -> dict[str, int]:
    """Return the bytes of each file that a manifest lists; errors refer to it as ``source``.

    Raises:
        ArtifactError: it is damaged.
    """
    return {name: listed.bytes for name, listed in read_manifest(manifest, source).files.items()}


def is_url(place: str) -> bool:
    """Whether ``place`` is a URL and not a path of this machine."""
    return "://" in place


def public_url(place: str) -> str:
    """Return ``place`` without the user, the password and the query of a URL, which may be secrets.

    A chain of URLs, as in ``zip://a.jpg::https://host/x.zip``, has several.
    """
    if not is_url(place):
        return place
    if len(chain := CHAIN.split(place)) > 1:
        return "::".join(map(public_url, chain))
    scheme, _, rest = place.partition("://")
    host, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def describe(error: Exception) -> str:
    """Describe an error of a library in one line, without the secrets of URLs."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"\S+://\S+", lambda found: public_url(found[0]), text)
