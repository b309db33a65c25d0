"""The command line: ``python -m service`` serves, ``python -m service client PICTURE…`` asks."""

import sys


def main() -> int:
    """Each command imports what it needs: asking takes no runtime."""
    if sys.argv[1:2] == ["client"]:
        from service.client.command import main as ask

        return ask(sys.argv[2:])
    from service.command import main as serve

    return serve(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
