"""Errors that keep a picture from being read.

ImageError                    base class; the message says what is wrong and how to cure it
├── DamagedImageError         empty, cut short or corrupted
├── UnsupportedImageError     whole, as far as one can tell, but of a kind that is not read
│   └── UnknownFormatError    of no format that is known
├── ImageTooLargeError        more pixels, memory or work than are taken
└── RegionOutsideError        a region has no pixel of the picture
"""


class ImageError(Exception):
    """Base class; the message says what is wrong and how to cure it."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(f"{problem}; {cure}")
        self.problem = problem


class DamagedImageError(ImageError):
    """The file is empty, cut short or corrupted."""


class UnsupportedImageError(ImageError):
    """The file is of a kind that is not read; the message names the kind and what to send instead."""


class UnknownFormatError(UnsupportedImageError):
    """The file begins like no format that is known."""


class ImageTooLargeError(ImageError):
    """The picture has more pixels, memory or work than are taken."""


class RegionOutsideError(ImageError):
    """A region that was asked for has no pixel of the picture."""
