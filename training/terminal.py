"""Output that works on terminals with any encoding."""

import io
import sys


def escape_unprintable() -> None:
    """Make stdout and stderr write characters that their encoding lacks as backslash escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
