"""A limit of the memory of whole pictures, which are held until they have been sampled, and its return."""

import asyncio
import ctypes
from contextlib import suppress


class Hold:
    """The memory of one picture."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.is_taken = False


class MemoryBudget:
    """Memory that pictures share, in the order in which they ask for it."""

    def __init__(self, max_bytes: int) -> None:
        self.held = 0
        """Bytes that are taken."""
        self._max_bytes = max_bytes
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    async def take(self, hold: Hold) -> None:
        """Wait until there is memory for ``hold``. One that exceeds the budget waits until it is alone."""
        async with self._turn:
            while self.held and self.held + hold.size > self._max_bytes:
                self._freed.clear()
                await self._freed.wait()
            hold.is_taken = True
            self.held += hold.size

    def give_back(self, hold: Hold) -> None:
        """Return the memory of ``hold``, if it was taken."""
        if hold.is_taken:
            hold.is_taken = False
            self.held -= hold.size
            self._freed.set()


def return_free_memory() -> None:
    """Have the GNU C library return its free memory to the system. Other C libraries do so by themselves."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
