"""The command line: ``python -m service client PICTURE…``."""

import argparse
import asyncio
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from PIL import Image

from service.client.calls import Options, RectifyOptions, Region, read
from service.client.clients import TIMEOUT_S, URL, AsyncClient, Client
from service.client.drawing import draw
from service.client.errors import ClientError, FileError, RefusedError
from service.client.frames import STDIN, as_line, find_pictures, stream_pictures
from service.client.rectified import SUFFIXES
from service.schemas.answers import ErrorBody, Prediction, Reliability
from service.schemas.options import Padding, read_region

DRAWN = ".answer.png"
BAR = 24
"""Characters of a bar for 100 %."""
PREDICT = ("model", "version", "top_k", "reliability", "views", "angle_hint", "points", "timeout_ms")
IMAGE = ("rectified_size", "padding", "margin")
RECTIFY = ("model", "version", "angle_hint", "timeout_ms", *IMAGE)
FASTEST = 1000
INTERRUPTED = 130
"""Status of a command that Ctrl+C ends."""


def main(arguments: Sequence[str]) -> int:
    """Predict, print and draw each picture. Return 0 if all of them succeeded, else 1."""
    options = parser()
    parsed = options.parse_args(arguments)
    if parsed.rate is not None and not (parsed.stream and 0 < parsed.rate <= FASTEST):
        options.error(f"--rate is for --stream, above 0 and at most {FASTEST} pictures a second")
    if not (parsed.json or parsed.stream) and (parsed.points is not None or parsed.image != "none"):
        options.error("--points and --image are for --json and --stream")
    if parsed.stream and (parsed.rectified is not None or parsed.out is not None):
        options.error("--stream writes lines of JSON and no files; leave out --rectified and --out")
    try:
        return asyncio.run(stream(parsed)) if parsed.stream else ask_each(parsed)
    except ClientError as error:
        print_error(str(error))
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


async def stream(parsed: argparse.Namespace) -> int:
    """Stream the pictures and print the answers; see `main`.

    Raises:
        ClientError: there is no stream, or it has ended.
    """
    failures = []

    def complain(text: str) -> None:
        failures.append(text)
        print_error(text)

    options: Any = json_options(parsed)
    if parsed.region:
        options["regions"] = parsed.region
    async with (
        AsyncClient(parsed.url, key=read_key(parsed.key_file), timeout_s=parsed.timeout) as client,
        client.stream(**options) as frames,
    ):
        async for picture, found in stream_pictures(frames, find_pictures(parsed.pictures), parsed.rate, complain):
            print_text(as_line(picture, found.answer, frame=found.frame, dropped=found.dropped))
            if isinstance(found.answer, ErrorBody):
                failures.append(found.answer.error.code)
    return 1 if failures else 0


def json_options(parsed: argparse.Namespace) -> Options:
    """The options of answers that are printed as JSON, where an image is only if it is asked for."""
    options: Options = chosen(parsed, PREDICT)
    options["rectified"] = parsed.image
    return options if parsed.image == "none" else options | chosen(parsed, IMAGE)


def chosen(parsed: argparse.Namespace, names: Sequence[str]) -> Any:
    """Those of the options ``names`` that were given."""
    return {name: value for name in names if (value := getattr(parsed, name)) is not None}


def read_key(file: Path | None) -> str | None:
    """Read the API key.

    Raises:
        FileError: the file cannot be read.
    """
    return None if file is None else read(file).decode("ascii", "replace").strip()


def ask_each(parsed: argparse.Namespace) -> int:
    """Ask about each picture; see `main`."""
    options: Options = json_options(parsed) if parsed.json else chosen(parsed, PREDICT)
    rectify: RectifyOptions = chosen(parsed, RECTIFY)
    answered = 0
    try:
        if STDIN in parsed.pictures:
            raise FileError("- is for --stream; name the pictures")
        check_rectified(parsed.rectified, parsed.pictures, parsed.region, rectify, parsed.image != "none")
        if parsed.rectified is not None:
            rectify["rectified"] = SUFFIXES[parsed.rectified.suffix.lower()]
        if parsed.region:
            rectify["region"] = parsed.region[0]
        drawings = destinations(parsed.pictures, parsed.out, len(parsed.region))
        with Client(parsed.url, key=read_key(parsed.key_file), timeout_s=parsed.timeout) as client:
            for picture, files in zip(parsed.pictures, drawings, strict=True):
                try:
                    content = read(picture)
                    answers = ask(client, content, parsed.region, options)
                    if not parsed.json:
                        for answer, drawing in zip(answers, files, strict=True):
                            write_drawing(content, answer, drawing)
                    if parsed.rectified is not None:
                        client.rectify(content, **rectify).save(parsed.rectified)
                except (RefusedError, FileError) as error:  # the other pictures go on
                    print_error(f"{picture}: {error}")
                else:
                    answered += 1
                    for answer, drawing in zip(answers, files, strict=True):
                        print_text(as_line(picture, answer) if parsed.json else table(picture, answer, drawing))
    except ClientError as error:
        print_error(str(error))
    return 0 if answered == len(parsed.pictures) else 1


def ask(client: Client, picture: bytes, regions: Sequence[Region], options: Options) -> Sequence[Prediction]:
    """The answer for the picture, or one for each region."""
    return client.predict_regions(picture, regions, **options) if regions else [client.predict(picture, **options)]


def region(text: str) -> Region:
    """Read an argument."""
    try:
        return read_region(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parser() -> argparse.ArgumentParser:
    """Create the parser of the options."""
    options = argparse.ArgumentParser(
        prog="python -m service client",
        description=f"Ask a service to classify pictures. Each prediction is printed, and drawn to PICTURE{DRAWN}.",
        allow_abbrev=False,
    )
    options.add_argument(
        "pictures",
        metavar="PICTURE",
        nargs="+",
        type=Path,
        help="a picture file; for --stream also a folder, or - for the names on the standard input",
    )
    options.add_argument("--json", action="store_true", help="print each answer as a line of JSON, and draw nothing")
    options.add_argument("--stream", action="store_true", help="send the pictures over one stream; implies --json")
    options.add_argument(
        "--rate",
        metavar="N",
        type=float,
        help="stream N pictures a second; some are dropped if that is too fast (default: as they are answered)",
    )
    options.add_argument("--points", metavar="N", type=int, help="add the positions of NxN sampled points to the JSON")
    options.add_argument(
        "--image", choices=("png", "jpeg", "webp", "none"), default="none", help="add the rectified image to the JSON"
    )
    options.add_argument("--timeout-ms", metavar="MS", type=int, help="milliseconds that the service may take")
    options.add_argument("--url", default=URL, help="address of the service (default: %(default)s)")
    options.add_argument("--model", metavar="NAME", help="name of the model (default: that of the service)")
    options.add_argument("--version", metavar="N", type=int, help="version of the model (default: that of the service)")
    options.add_argument("--top-k", metavar="N", type=int, help="number of classes to print (default: 5)")
    options.add_argument(
        "--region",
        metavar="X1,Y1,X2,Y2",
        type=region,
        action="append",
        default=[],
        help="show the model only this part of each picture, in pixels; repeat it for several parts",
    )
    options.add_argument(
        "--angle-hint",
        metavar="DEGREES",
        type=float,
        help="the thing is turned by about as much, -180 to 180",
    )
    options.add_argument(
        "--out", metavar="FOLDER", type=Path, help="folder of the drawings (default: beside the pictures)"
    )
    options.add_argument(
        "--rectified", metavar="FILE", type=Path, help="write the rectified picture to this .png, .jpg or .webp file"
    )
    options.add_argument(
        "--rectified-size", metavar="SIZE", help="its size: source, model or HEIGHTxWIDTH (default: source in a file)"
    )
    options.add_argument("--padding", choices=get_args(Padding), help="its surroundings (default: black)")
    options.add_argument("--margin", metavar="SHARE", type=float, help="more of the surroundings, 0 to 1 (default: 0)")
    options.add_argument("--reliability", metavar="N", type=int, help="tell how reliable the answer is from N views")
    options.add_argument("--views", metavar="N", type=int, help="average the probabilities over N views, 4 to 16")
    options.add_argument("--key-file", metavar="FILE", type=Path, help="file with the API key")
    options.add_argument(
        "--timeout", metavar="S", type=float, default=TIMEOUT_S, help="seconds to wait (default: %(default)g)"
    )
    return options


def check_rectified(
    file: Path | None, pictures: Sequence[Path], regions: Sequence[Region], options: RectifyOptions, has_image: bool
) -> None:
    """Check where the rectified picture is to be written.

    Raises:
        FileError: there is no format for the file, several pictures or regions would be written to it, or it is a
            picture itself.
    """
    if file is None:
        if set(IMAGE) & options.keys() and not has_image:
            raise FileError("--rectified-size, --padding and --margin are for --rectified and --image")
    elif file.suffix.lower() not in SUFFIXES:
        raise FileError(f"{file} is no file for a picture; end its name with {', '.join(SUFFIXES)}")
    elif len(pictures) > 1:
        raise FileError(f"{len(pictures)} pictures would be written to {file}; run the command once for each")
    elif len(regions) > 1:
        raise FileError(f"{len(regions)} regions would be written to {file}; run the command once for each")
    elif file.resolve() == pictures[0].resolve():
        raise FileError(f"{file} would be overwritten by its rectified picture; choose another --rectified")


def destinations(pictures: Sequence[Path], folder: Path | None, regions: int) -> list[list[Path]]:
    """Return the files of the drawings: one for each picture, or a numbered one for each of its ``regions``.

    Raises:
        FileError: two drawings have the same file, or the folder cannot be created.
    """
    numbers = [f".{number}" for number in range(1, regions + 1)] or [""]
    drawings = [
        [(folder or picture.parent) / f"{picture.stem}{number}{DRAWN}" for number in numbers] for picture in pictures
    ]
    flat = [drawing for files in drawings for drawing in files]
    for drawing, count in Counter(flat).items():
        if count > 1:
            raise FileError(
                f"two pictures would be drawn to {drawing}; run the command once for each, with another --out"
            )
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot create {folder}: {error.strerror}; choose another --out") from error
    return drawings


def write_drawing(picture: bytes, answer: Prediction, file: Path) -> None:
    """Draw ``answer`` to ``file`` atomically.

    Raises:
        FileError: Pillow cannot read the picture, or the file cannot be written.
    """
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        draw(picture, answer).save(aside, "PNG")
        aside.replace(file)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        aside.unlink(missing_ok=True)
        raise FileError(f"the prediction cannot be drawn to {file}: {error}") from error


def table(picture: Path, answer: Prediction, drawing: Path) -> str:
    """Format the prediction as text."""
    model, times = answer.model, answer.timings_ms
    width = max(len(prediction.label) for prediction in answer.predictions)
    part = f" ({','.join(map(str, answer.region))})" if answer.region else ""
    lines = [f"{picture}{part}: {model.name}/{model.version} in {times.total:.1f} ms, drawn to {drawing}"]
    for prediction in answer.predictions:
        bar = "█" * round(prediction.probability * BAR)
        lines.append(f"  {prediction.label:<{width}}  {prediction.probability:>6.1%}  {bar}".rstrip())
    if answer.reliability is not None:
        lines.append(f"  {describe(answer.reliability)}")
    return "\n".join(lines)


def describe(reliability: Reliability) -> str:
    """Format the reliability as text."""
    score = "" if reliability.score is None else f" {reliability.score:.1%};"
    turned = "" if reliability.angle == "follows" else " (which way is up: cannot tell)"
    again = "; looked again" if reliability.second_look else ""
    return (
        f"reliability:{score} class in {reliability.label_agreement:.0%} of {reliability.views} views, corners off by "
        f"{reliability.corner_deviation_px:.1f} px, angle by {reliability.angle_deviation_deg:.1f}°{turned}{again}"
    )


def print_text(text: str) -> None:
    """Print a prediction."""
    print(text, flush=True)  # noqa: T201 - the command line's answer to its user


def print_error(text: str) -> None:
    """Print an error in one line."""
    print(f"error: {text}", file=sys.stderr)  # noqa: T201
