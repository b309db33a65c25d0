"""The estimated cost of decoding a picture, as its file's structure tells before anything is decoded."""

from dataclasses import dataclass


class ImplausibleError(Exception):
    """The structure of a file is beyond what any picture needs; the message says in which respect."""


@dataclass(slots=True)
class Cost:
    """An upper estimate for one picture.

    Seconds are those of one core of 2020's servers. They are a measure of work, the same on every machine, and no
    promise of time.
    """

    width: int = 0
    height: int = 0
    """Width and height of the largest bitmap that the decoder makes, as stored."""
    bytes: int = 0
    """Memory at the peak, from decoding to the model's input, without the file itself."""
    seconds: float = 0.0
    bounded: bool = True
    """False for codecs that choose their memory by the content of their own stream."""
    cause: str = ""
    """The part of the file that costs most, if that is not its pixels."""

    @property
    def pixels(self) -> int:
        """The number of pixels of the largest bitmap that the decoder makes."""
        return self.width * self.height

    @property
    def size(self) -> str:
        """Width and height in words."""
        return f"{self.width} x {self.height} pixels"

    @property
    def because(self) -> str:
        """The `cause` as the end of a sentence; empty if it is the pixels."""
        return f" because of {self.cause}" if self.cause else ""

    def add_bitmap(self, width: int, height: int) -> None:
        """Enlarge the bitmap to hold ``width`` x ``height`` too."""
        self.width, self.height = max(self.width, width), max(self.height, height)

    def add_work(self, seconds: float, cause: str) -> None:
        """Add work besides that of the pixels; the largest addition names the ``cause``."""
        if seconds > max(0.01, self.seconds):
            self.cause = cause
        self.seconds += seconds
