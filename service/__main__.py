"""The command line: ``python -m service`` serves, ``… key NAME`` makes a key, ``… client PICTURE…`` asks."""

import os
import signal
import sys

INTERRUPTED = 130
"""Exit status after Ctrl+C, as shells have it; a service that answers already ends in order, with 0."""


def main() -> int:
    """Each command imports what it needs: asking takes no runtime."""
    command, rest = sys.argv[1:2], sys.argv[2:]
    if command == ["client"]:
        from service.client.command import main as ask

        return ask(rest)
    if command == ["key"]:
        from service.middleware.api_keys import main as make_key

        return make_key(rest)
    from service.cli import main as serve

    return serve(sys.argv[1:])


if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))  # of a KeyboardInterrupt imports make other errors
    sys.exit(main())
