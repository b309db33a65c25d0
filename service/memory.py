"""Memory that is free, returned to the system."""

import ctypes
from contextlib import suppress


def return_free_memory() -> None:
    """Have GNU's C library return its free memory to the system; other C libraries need no help."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
