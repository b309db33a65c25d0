"""The answer of POST /rectify: a picture, described in the headers."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import unquote

import httpx
from pydantic import TypeAdapter

from service.client.errors import FileError
from service.schemas.answers import Corners, ModelReference, Reliability

Format = Literal["png", "jpeg", "webp"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: dict[str, Format] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
"""The format of a file, by the end of its name."""
read_corners = TypeAdapter(Corners).validate_json


@dataclass(frozen=True)
class RectifiedPicture:
    """A rectified picture and what the service says of it."""

    content: bytes
    """The file."""
    format: Format
    model: ModelReference
    label: str
    """The most probable class."""
    index: int
    probability: float
    angle: float
    """Degrees by which the region is turned clockwise in the uploaded picture."""
    corners: list[list[float]]
    """The corners of the region in pixels of the uploaded picture."""
    reliability: Reliability | None = None
    """Only if it was requested."""

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the file; nothing is left of it if that fails.

        Raises:
            FileError: the file cannot be written.
        """
        path = Path(file)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            aside.write_bytes(self.content)
            aside.replace(path)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise FileError(f"cannot write {path}: {error.strerror or error}") from error


def read_rectified(response: httpx.Response) -> RectifiedPicture:
    """Read a response.

    Raises:
        ValueError: it is not one of this service.
    """
    headers = response.headers
    kind = next((each for each in FORMATS if headers.get("content-type") == f"image/{each}"), None)
    try:
        if kind is None:
            raise ValueError("the response is not a picture")
        name, _, version = headers["x-model"].rpartition("/")
        return RectifiedPicture(
            content=response.content,
            format=kind,
            model=ModelReference(name=name, version=int(version)),
            label=unquote(headers["x-class"]),
            index=int(headers["x-class-index"]),
            probability=float(headers["x-probability"]),
            angle=float(headers["x-angle"]),
            corners=read_corners(headers["x-corners"]),
            reliability=Reliability.model_validate_json(told) if (told := headers.get("x-reliability")) else None,
        )
    except KeyError as error:
        raise ValueError(f"the header {error} is missing") from error
