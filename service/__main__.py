"""The command line, as ``stn-serve`` or ``python -m service``: serve models, ask a service, score, make an API key."""

import io
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NoReturn

SCRIPT: Final = "stn-serve"
COMMANDS: Final = """{program} [serve] [FLAGS]    serve models; the flags are below
{program} client PICTURE...  ask a running service; see {program} client --help
{program} score INPUT        score many pictures here; see {program} score --help
{program} key NAME           make an API key; see {program} key --help
"""
SCORE_PACKAGES: Final = ("fsspec", "onnxruntime", "pyarrow", "tqdm")
SCORE_CURE: Final = "pip install 'stn-serve[serve-cpu,score]'"


def main() -> int:
    """Run a command. Each imports its own modules, so that the client needs no runtime."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # escape characters that the encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    command, rest = sys.argv[1:2], sys.argv[2:]
    if command == ["client"]:
        from service.client.command import main as predict

        return predict(rest)
    if command == ["key"]:
        from service.middleware.api_keys import main as make_key

        return make_key(rest)
    if command == ["score"]:
        return score(rest)
    from service.cli import main as serve

    if command in (["-h"], ["--help"]):
        program = SCRIPT if Path(sys.argv[0]).name == SCRIPT else "python -m service"
        print(COMMANDS.format(program=program))  # noqa: T201 - the command line's answer to its user
    return serve(rest if command == ["serve"] else sys.argv[1:])


def score(arguments: Sequence[str]) -> int:
    """Run ``python -m service score``, if what it needs is installed."""
    missing = [package for package in SCORE_PACKAGES if find_spec(package) is None]
    if missing:
        print(f"error: score needs {', '.join(missing)}; install the `score` extra: {SCORE_CURE}", file=sys.stderr)  # noqa: T201
        return 1
    from service.score.command import main as score_pictures

    return score_pictures(arguments)


def run() -> NoReturn:
    """Run a command and exit with its status."""
    # Until the service is ready, Ctrl+C ends it at once, even within a library; imports turn KeyboardInterrupt into
    # other errors.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main())


if __name__ == "__main__":
    run()
