"""The command line: ``python -m service client PICTURE…``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from service.client.calls import Options, read
from service.client.clients import TIMEOUT_S, URL, Client
from service.client.drawing import draw
from service.client.errors import ClientError, FileError, RefusedError
from service.schemas import Prediction

DRAWN = ".answer.png"
BAR = 24
"""Characters of a bar for 100 %."""


def main(arguments: Sequence[str]) -> int:
    """Ask, tell and draw; 0 when every picture has its answer, else 1."""
    asked = parser().parse_args(arguments)
    options: Options = {}
    for name in ("model", "version", "top_k"):
        if (value := getattr(asked, name)) is not None:
            options[name] = value
    answered = 0
    try:
        drawings = destinations(asked.pictures, asked.out)
        key = read(asked.key_file).decode("ascii", "replace").strip() if asked.key_file else None
        with Client(asked.url, key=key, timeout_s=asked.timeout) as client:
            for picture, drawing in zip(asked.pictures, drawings, strict=True):
                try:
                    content = read(picture)
                    answer = client.predict(content, **options)
                    write_drawing(content, answer, drawing)
                except (RefusedError, FileError) as error:  # of this picture alone
                    complain(f"{picture}: {error}")
                else:
                    answered += 1
                    say(table(picture, answer, drawing))
    except ClientError as error:
        complain(str(error))
    return 0 if answered == len(asked.pictures) else 1


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(
        prog="python -m service client",
        description=f"Ask a service what pictures show; each answer is told here and drawn to PICTURE{DRAWN}.",
        allow_abbrev=False,
    )
    options.add_argument("pictures", metavar="PICTURE", nargs="+", type=Path, help="a picture file")
    options.add_argument("--url", default=URL, help="where the service is (default: %(default)s)")
    options.add_argument("--model", metavar="NAME", help="the model to ask; the service's first when left out")
    options.add_argument("--version", metavar="N", type=int, help="its version; the service's default when left out")
    options.add_argument("--top-k", metavar="N", type=int, help="how many classes to tell (default: 5)")
    options.add_argument("--out", metavar="FOLDER", type=Path, help="where to draw; beside each picture when left out")
    options.add_argument("--key-file", metavar="FILE", type=Path, help="a file with the API key in it")
    options.add_argument(
        "--timeout", metavar="S", type=float, default=TIMEOUT_S, help="seconds to wait (default: %(default)g)"
    )
    return options


def destinations(pictures: Sequence[Path], folder: Path | None) -> list[Path]:
    """Where the answers are drawn.

    Raises:
        FileError: two would be drawn to the same file, or the folder cannot be made.
    """
    drawings = [(folder or picture.parent) / f"{picture.stem}{DRAWN}" for picture in pictures]
    for drawing in drawings:
        if drawings.count(drawing) > 1:
            raise FileError(
                f"two pictures would be drawn to {drawing}; ask for one after the other, with another --out"
            )
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot make {folder}: {error.strerror}; choose another --out") from error
    return drawings


def write_drawing(picture: bytes, answer: Prediction, file: Path) -> None:
    """Draw ``answer`` to ``file``, whole or not at all.

    Raises:
        FileError: the picture is beyond what this machine's Pillow reads, or the file cannot be written.
    """
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        draw(picture, answer).save(aside, "PNG")
        aside.replace(file)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        aside.unlink(missing_ok=True)
        raise FileError(f"its answer cannot be drawn to {file}: {error}") from error


def table(picture: Path, answer: Prediction, drawing: Path) -> str:
    """The answer as text."""
    model, times = answer.model, answer.timings_ms
    width = max(len(prediction.label) for prediction in answer.predictions)
    lines = [f"{picture}: {model.name}/{model.version} in {times.total:.1f} ms, drawn to {drawing}"]
    for prediction in answer.predictions:
        bar = "█" * round(prediction.probability * BAR)
        lines.append(f"  {prediction.label:<{width}}  {prediction.probability:>6.1%}  {bar}".rstrip())
    return "\n".join(lines)


def say(text: str) -> None:
    """What was asked for."""
    print(text, flush=True)  # noqa: T201 - the command line's answer to its user


def complain(text: str) -> None:
    """What went wrong, in one line."""
    print(f"error: {text}", file=sys.stderr)  # noqa: T201
