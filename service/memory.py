"""Returns free memory to the system."""

import ctypes
from contextlib import suppress


def return_free_memory() -> None:
    """Have the GNU C library return its free memory to the system. Other C libraries do so by themselves."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
