"""The folder in memory through which the workers of one service share their metrics.

The supervisor locks its folder. The system releases the lock when the process ends in any way. A service that starts
removes unlocked folders.
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
        """Remove abandoned folders and create one in ``parent`` (default: in memory if possible).

        Raises:
            StartError: the folder cannot be created.
        """
        parent = parent or Path(MEMORY if os.access(MEMORY, os.W_OK) else tempfile.gettempdir())
        remove_abandoned(parent)
        for _ in range(ATTEMPTS):
            try:
                self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            except OSError as error:
                raise StartError(f"cannot create a folder in {parent} ({error.strerror}); free space there") from error
            lock = take_lock(self.path)
            if lock is not None and self.path.exists():
                self._lock = lock
                return
            if lock is not None:  # a service that starts at the same time has removed it
                os.close(lock)
        raise StartError(f"cannot lock a folder in {parent}; set TMPDIR to a folder on a local disk")

    def remove(self) -> None:
        """Remove the folder and release its lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def remove_abandoned(parent: Path) -> None:
    """Remove this user's folders in ``parent`` whose supervisors have died."""
    for folder in parent.glob(f"{PREFIX}*"):
        lock = take_lock(folder)
        if lock is not None:
            if os.fstat(lock).st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def take_lock(folder: Path) -> int | None:
    """Lock ``folder`` and return its file descriptor; None if another process has the lock or the folder is gone."""
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
