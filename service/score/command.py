"""The command line: ``python -m service score INPUT --model NAME --out FOLDER``."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from export.format.remote import is_url
from imaging.encoding import FileFormat
from imaging.warping import Padding
from service.errors import InputError, OutputError, ServiceError
from service.inference.rectified.options import MAX_SIDE, RectifiedOptions, read_size
from service.schemas.options import LEAST_VIEWS, MOST_VIEWS, RectifyOptions
from service.score.conditions import read_condition
from service.score.inputs import Selection
from service.score.run import PART_ROWS, Outcome, Run, find_model, score, share_settings, worker_settings
from service.score.scorer import ScoreOptions
from service.score.workers.processes import Processes
from service.score.workers.workers import Workers, log_errors_only
from service.settings import Settings, load_settings

INTERRUPTED = 130
"""Exit code after Ctrl+C, as shells have it."""
DESCRIPTION = """Score many pictures on all cores of this machine, or of a Ray cluster, without a running service.

INPUT is a folder of pictures, a pattern in quotes ('pictures/*.jpg'), a table (CSV or Parquet) with a column of paths
or of bytes, or WebDataset tars, on this machine or at a URL that fsspec reads (s3://, gs://, hf://, https://). The
answers are Parquet files in FOLDER. If it is interrupted, the same command goes on where it was."""


def main(arguments: Sequence[str]) -> int:
    """Score the input. Return 0 if all of it is scored, 1 after an error, and 130 if it was interrupted."""
    log_errors_only()
    parsed = parser().parse_args(arguments)
    try:
        run, opened = read_run(parsed)
        with opened as workers:
            outcome = score(run, workers)
    except ServiceError as error:
        print_line(f"error: {error}")
        return 1
    print_line(summary(outcome, Path(parsed.out)))
    if not outcome.is_complete:
        return INTERRUPTED
    return 0 if outcome.rows > outcome.errors.total() else 1


def parser() -> argparse.ArgumentParser:
    """Create the parser of the options."""
    options = argparse.ArgumentParser(
        prog="python -m service score",
        description=DESCRIPTION,
        epilog="Limits on pictures, the models folder and the device can be set in the environment too (STN_MAX_BYTES, "
        "STN_MAX_PIXELS, STN_MODELS, STN_DEVICE, ...).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    number = at_least_one
    options.add_argument("input", metavar="INPUT", help="what to score")
    options.add_argument(
        "--model", metavar="NAME[/VERSION]", required=True, help="the model; without VERSION, its highest version"
    )
    options.add_argument("--out", metavar="FOLDER", required=True, help="folder of the answers")
    options.add_argument("--models", metavar="FOLDER", help="folder of the models, or its URL (default: models)")
    options.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where the model runs (default: auto)")
    options.add_argument("--workers", metavar="N", type=number, help="processes (default: one a core, or one on a GPU)")
    options.add_argument(
        "--ray",
        metavar="ADDRESS",
        nargs="?",
        const="auto",
        help="score on the Ray cluster at this address, one actor a core or GPU (without an address: that of "
        "RAY_ADDRESS, or the one on this machine)",
    )
    options.add_argument("--top-k", metavar="N", type=number, default=5, help="classes in the answers (default: 5)")
    options.add_argument(
        "--reliability",
        metavar="N",
        type=int,
        default=0,
        help="tell how reliable each answer is from N views, 4 to 16 (default: not)",
    )
    options.add_argument(
        "--limit", metavar="N", type=number, help="most rows of the output; the same command without it goes on"
    )
    options.add_argument(
        "--where",
        metavar="CONDITION",
        action="append",
        default=[],
        help="only rows that meet it: split=test, width>=64, 'path~*/street/*'; several must all be met",
    )
    options.add_argument("--column", metavar="NAME", help="column of a table with the paths or bytes")
    options.add_argument("--root", metavar="FOLDER", help="folder of relative paths (default: that of the table)")
    options.add_argument("--rectified", metavar="FOLDER", help="write the rectified pictures there")
    options.add_argument("--rectified-format", choices=get_args(FileFormat), help="their format (default: png)")
    options.add_argument("--rectified-size", metavar="SIZE", help="their size: source (default), model or HEIGHTxWIDTH")
    options.add_argument("--padding", choices=get_args(Padding), help="their surroundings (default: black)")
    options.add_argument("--margin", metavar="SHARE", type=float, help="more of the surroundings, 0 to 1 (default: 0)")
    options.add_argument(
        "--part-rows", metavar="N", type=number, default=PART_ROWS, help="most rows of a part (default: %(default)s)"
    )
    return options


def at_least_one(text: str) -> int:
    """Parse a number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


at_least_one.__name__ = "number"  # argparse shows it


def read_run(parsed: argparse.Namespace) -> tuple[Run, AbstractContextManager[Workers]]:
    """Return what the command asks for, and the workers that do it.

    Raises:
        ServiceError: an option is wrong, or there is no such model.
    """
    given = {name: getattr(parsed, name) for name in ("models", "device") if getattr(parsed, name) is not None}
    settings = load_settings(()).model_copy(update=given)
    if any(map(is_url, filter(None, (parsed.out, parsed.rectified)))):
        raise OutputError("answers are written to this machine only; name a folder, and copy it when it is complete")
    if parsed.reliability and not LEAST_VIEWS <= parsed.reliability <= MOST_VIEWS:
        raise InputError(f"--reliability is told from {LEAST_VIEWS} to {MOST_VIEWS} views; correct it")
    name, version, digest = find_model(
        settings, check_reference(parsed.model), parsed.reliability, rectified=bool(parsed.rectified)
    )
    form = rectified_form(parsed, settings)
    rectified = Path(parsed.rectified).absolute() if parsed.rectified else None
    conditions = tuple(map(read_condition, parsed.where))
    selection = Selection(parsed.input, parsed.column, parsed.root, conditions, settings.max_bytes)
    options = ScoreOptions(settings, name, version, digest, parsed.top_k, rectified, form, parsed.reliability)
    options, workers = open_workers(options, parsed.ray, parsed.workers)
    return Run(selection, options, Path(parsed.out), parsed.limit, parsed.part_rows), workers


def open_workers(
    options: ScoreOptions, address: str | None, count: int | None
) -> tuple[ScoreOptions, AbstractContextManager[Workers]]:
    """Return ``options`` with the settings of one worker, and the workers: of the cluster at ``address`` if it is one.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    settings, reference = options.settings, f"{options.name}/{options.version}"
    if address is None:
        own, count = worker_settings(settings, reference, count)
        options = options._replace(settings=own)
        return options, Processes(options, count)
    if find_spec("ray") is None:
        raise InputError("--ray needs Ray; install it with: pip install 'stn-serve[ray]'")
    from service.score.workers.cluster import Cluster, connect, find_share

    connect(address)
    share = find_share(settings.device, count)
    if not settings.has_remote_models:  # actors work in other folders
        settings = settings.model_copy(update={"models": str(settings.models_folder.absolute())})
    settings = settings.model_copy(update={"device": share.device})
    options = options._replace(settings=share_settings(settings, reference, share.actors, share.cores))
    return options, Cluster(options, share)


def check_reference(reference: str) -> str:
    """Return ``NAME`` or ``NAME/VERSION``.

    Raises:
        InputError: it has another form.
    """
    try:
        Settings.model_validate({"load": reference})
    except ValidationError:
        reference = ""
    if not reference or "," in reference:
        raise InputError("--model is one NAME or NAME/VERSION of the models folder")
    return reference


def rectified_form(parsed: argparse.Namespace, settings: Settings) -> RectifiedOptions:
    """Return the form of the rectified pictures.

    Raises:
        InputError: an option is wrong.
    """
    names = {"rectified_format": "rectified", "rectified_size": "rectified_size", "padding": "padding"}
    names |= {"margin": "margin"}
    given = {name: value for option, name in names.items() if (value := getattr(parsed, option)) is not None}
    if given and parsed.rectified is None:
        raise InputError("--rectified-format, --rectified-size, --padding and --margin are for --rectified FOLDER")
    try:
        checked = RectifyOptions.model_validate(given)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        option = "--" + str((problem["loc"] or ("rectified",))[-1]).replace("_", "-")
        raise InputError(f"{option}: {problem['msg']}") from error
    size = read_size(checked.rectified_size)
    if not isinstance(size, str) and (size[0] * size[1] > settings.max_rectified_pixels or max(size) > MAX_SIDE):
        raise InputError(
            f"--rectified-size {checked.rectified_size} is more than {settings.max_rectified_pixels} pixels or longer "
            f"than {MAX_SIDE}; choose a smaller one, or raise STN_MAX_RECTIFIED_PIXELS"
        )
    return RectifiedOptions(
        checked.rectified or "png", size, checked.padding, checked.margin, settings.max_rectified_pixels, only_main=True
    )


def summary(outcome: Outcome, out: Path) -> str:
    """Return what is in the output, in a line."""
    text = f"{out}: {outcome.rows} pictures"
    if outcome.errors:
        each = ", ".join(f"{code} {count}" for code, count in outcome.errors.most_common())
        text += f", {outcome.errors.total()} of them with errors ({each})"
    return text if outcome.is_complete else f"{text}; interrupted: the same command goes on from there"


def print_line(text: str) -> None:
    """Print a line for the user."""
    print(text, file=sys.stderr)  # noqa: T201 - the command line's answer to its user
