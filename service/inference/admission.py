"""How much may be under way at once for a model. What is too much is refused before it is decoded."""

from types import TracebackType
from typing import Self

from service.errors import QueueFullError, TooLargeError


class CapacityLimiter:
    """Room for pictures, from the arrival of their bytes to their answers."""

    def __init__(self, max_pictures: int, max_bytes: int, at_once: int) -> None:
        """``at_once`` is how many should be worked on while others wait in the admission queue."""
        self.at_once = at_once
        self._max_pictures = max_pictures
        self._max_bytes = max_bytes
        self.pictures = 0
        self.bytes = 0
        self.held = 0
        """Of the pictures, those that wait at the wire."""
        self.let_in = self.let_in_bytes = 0
        """Those that have just been let in there, and take room for themselves in the next turn of the event loop."""

    def fits(self, pictures: int, size: int) -> bool:
        """Whether there is room for so much, besides those that have just been let in."""
        return (
            self.pictures + self.let_in + pictures <= self._max_pictures
            and self.bytes + self.let_in_bytes + size <= self._max_bytes
        )

    def could_fit(self, pictures: int, size: int) -> bool:
        """Whether there would be room for so much if there were nothing else."""
        return pictures <= self._max_pictures and size <= self._max_bytes

    def take(self, pictures: int, size: int) -> None:
        """Take room for ``pictures`` of together ``size`` bytes.

        Raises:
            QueueFullError: there is not enough.
        """
        if self.pictures + pictures > self._max_pictures:
            raise QueueFullError(f"{self.pictures} pictures are waiting already; try again a little later")
        if self.bytes + size > self._max_bytes:
            raise QueueFullError(f"{self.bytes} bytes of pictures are waiting already; try again a little later")
        self.pictures += pictures
        self.bytes += size

    def give_back(self, pictures: int, size: int) -> None:
        """Of what was taken."""
        self.pictures -= pictures
        self.bytes -= size


class Permit:
    """What one request has taken of a `CapacityLimiter`; left as a context."""

    __slots__ = ("_bytes", "_pictures", "_room")

    def __init__(self, room: CapacityLimiter) -> None:
        self._room = room
        self._pictures = 0
        self._bytes = 0

    def take(self, *, pictures: int = 0, size: int = 0) -> None:
        """See `CapacityLimiter.take`.

        Raises:
            TooLargeError: there will never be room for all that the request takes.
        """
        if not self._room.could_fit(self._pictures + pictures, self._bytes + size):
            raise TooLargeError(
                "this is more than may wait at all; send fewer pictures, or smaller ones, in one request"
            )
        self._room.take(pictures, size)
        self._pictures += pictures
        self._bytes += size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._room.give_back(self._pictures, self._bytes)
