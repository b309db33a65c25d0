"""The page at GET /: its files, which are kept in memory, and the sample pictures of the models.

All files but ``index.html`` are served under a path with a digest of their contents, and may be cached for ever. The
samples of a model are in ``MODELS/NAME/samples/``, named by their class. The golden pictures of its artifact replace
missing samples.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from export.format.artifact import ArtifactError, find_artifacts, read_artifact, read_bytes
from imaging.encoding import encode
from service.api.errors import ErrorRoute
from service.inference.registry import Model, Models

FOLDER: Final = Path(__file__).parents[1] / "page"
INDEX: Final = "index.html"
PLACEHOLDER: Final = b"{files}"
"""The placeholder in ``index.html`` for the path of the other files."""
TYPES: Final[Mapping[str, str]] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
}
SAMPLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ()._-]{0,99}\.(png|jpg)")
SAMPLES: Final = "samples"
LARGEST_SAMPLE: Final = 16 * 2**20
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
PAGE_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
}
FOR_EVER: Final = "public, max-age=31536000, immutable"
REVALIDATE: Final = "no-cache"


class File(NamedTuple):
    """A file and its headers."""

    content: bytes
    type: str
    etag: str


def make_file(content: bytes, name: str) -> File:
    """Make a file whose type follows from its ``name``."""
    return File(content, TYPES[Path(name).suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')


class Page:
    """The files of the page in ``folder`` and its sub-folders."""

    def __init__(self, folder: Path = FOLDER) -> None:
        paths = sorted(path for path in folder.rglob("*") if path.suffix in TYPES)
        contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        index = contents.pop(INDEX)
        digest = hashlib.sha256()
        for name, content in contents.items():
            digest.update(f"{name}:{len(content)}:".encode() + content)
        self.version = digest.hexdigest()[:16]
        self.index = make_file(index.replace(PLACEHOLDER, f"page/{self.version}".encode()), INDEX)
        self.files = {name: make_file(content, name) for name, content in contents.items()}


def create_ui(find_models: Callable[[], Models], folder: Path, page: Page | None = None, **samples: Any) -> APIRouter:
    """Create the routes of the page for the models folder. ``samples`` are options of the router of samples."""
    router = APIRouter(include_in_schema=False)
    sample_router = APIRouter(include_in_schema=False, route_class=ErrorRoute, **samples)
    page = page or Page()

    @router.get("/")
    @router.head("/")
    async def index(request: Request) -> Response:
        return send(request, page.index, REVALIDATE, PAGE_HEADERS)

    @sample_router.get("/samples/{model}")
    def list_all(model: str) -> Response:
        found = find_models().find(model, None)
        names = list_samples(folder / model / SAMPLES) or list(golden_samples(found, folder))
        return JSONResponse({"samples": names}, headers={"Cache-Control": REVALIDATE})

    @sample_router.get("/samples/{model}/{name}")
    def sample(request: Request, model: str, name: str) -> Response:
        found = find_models().find(model, None)
        if not SAMPLE.fullmatch(name):
            raise HTTPException(404)
        try:
            content = read_bytes(folder / model / SAMPLES / name, LARGEST_SAMPLE)
        except ArtifactError:
            content = golden_samples(found, folder).get(name, b"")
        if not content:
            raise HTTPException(404)
        return send(request, make_file(content, name), REVALIDATE)

    @router.get("/page/{version}/{name:path}")
    async def part(request: Request, version: str, name: str) -> Response:
        found = page.files.get(name) if version == page.version else None
        if found is None:
            raise HTTPException(404)
        return send(request, found, FOR_EVER)

    router.include_router(sample_router)
    return router


def list_samples(folder: Path) -> list[str]:
    """List the sample pictures in ``folder``; empty if there is no such folder."""
    try:
        found = [entry for entry in folder.iterdir() if SAMPLE.fullmatch(entry.name) and entry.is_file()]
    except OSError:
        return []
    return sorted((entry.name for entry in found), key=in_order)


def golden_samples(model: Model, folder: Path) -> Mapping[str, bytes]:
    """Return the golden pictures of ``model`` in ``folder`` by name; empty if its files have been removed."""
    try:
        return read_golden(model.name, model.version, model.digest, folder)
    except (ArtifactError, KeyError):
        return {}


@lru_cache(maxsize=32)
def read_golden(name: str, version: int, digest: str, folder: Path) -> Mapping[str, bytes]:
    """Read the pictures for `golden_samples`. The ``digest`` of the artifact is part of the cache key.

    Raises:
        ArtifactError: the artifact cannot be read.
        KeyError: there is no such artifact.
    """
    paths = {(found, number): path for found, number, path in find_artifacts(folder)}
    images, _ = read_artifact(paths[name, version]).golden()
    return {f"picture {number}.png": encode(image, "png") for number, image in enumerate(images, start=1)}


def in_order(name: str) -> tuple[int, str]:
    """Sort key: numbers by value, then all other names."""
    stem = Path(name).stem
    return (int(stem), name) if stem.isdecimal() else (10**9, name)


def send(request: Request, found: File, caching: str, headers: Mapping[str, str] | None = None) -> Response:
    """Respond with the file, or with 304 if the client has it."""
    common = {"ETag": found.etag, "Cache-Control": caching, **(headers or {})}
    if found.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=common)
    return Response(found.content, media_type=found.type, headers=common)
