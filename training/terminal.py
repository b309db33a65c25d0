"""What a command line does before anything else: it makes sure that nothing it prints can end it."""

import io
import sys


def escape_unprintable() -> None:
    """Let stdout and stderr write characters that their encoding lacks as escapes (backslash, u, number)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
