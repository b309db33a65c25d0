"""Files that are either whole or not there: written aside, then renamed."""

import os
from pathlib import Path


def write_bytes(file: Path, content: bytes) -> None:
    """Replace ``file`` by ``content`` in one step; an interruption leaves what was there before."""
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        aside.write_bytes(content)
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)


def write_text(file: Path, content: str) -> None:
    """`write_bytes` for text, as UTF-8."""
    write_bytes(file, content.encode())
