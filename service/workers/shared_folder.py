"""The folder in memory through which the workers of one service share their metrics.

The supervisor holds a lock on its folder, which the system releases when the process ends in whatever way. A service
that starts removes the folders that nobody holds any more.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from service.errors import StartError

MEMORY: Final = "/dev/shm"  # noqa: S108 - only folders with an unpredictable name are made in it
"""Where Linux keeps files in memory."""
PREFIX: Final = "stn-serve-metrics-"
ATTEMPTS: Final = 10


class SharedFolder:
    """A new folder that exists until `remove` is called, or until a later service finds its supervisor dead."""

    def __init__(self, parent: Path | None = None) -> None:
        """Create it in ``parent`` (default: in memory where there is such a place), after removing abandoned folders.

        Raises:
            StartError: it cannot be created.
        """
        place = parent or Path(MEMORY if os.access(MEMORY, os.W_OK) else tempfile.gettempdir())
        remove_abandoned(place)
        for _ in range(ATTEMPTS):
            try:
                self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
            except OSError as error:
                raise StartError(f"cannot create a folder in {place} ({error.strerror}); make room there") from error
            lock = take_lock(self.path)
            if lock is not None and self.path.exists():
                self._lock = lock
                return
            if lock is not None:  # a service that starts at the same time has taken it for an abandoned one
                os.close(lock)
        raise StartError(f"cannot lock a folder in {place}; set TMPDIR to a folder on a local disk")

    def remove(self) -> None:
        """Remove the folder and release its lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def remove_abandoned(place: Path) -> None:
    """Remove this user's folders in ``place`` whose supervisors have died."""
    for folder in place.glob(f"{PREFIX}*"):
        lock = take_lock(folder)
        if lock is not None:
            if os.fstat(lock).st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def take_lock(folder: Path) -> int | None:
    """A file descriptor that holds the lock of ``folder``; None if another process holds it or the folder is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
