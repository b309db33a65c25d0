"""Failures of decoders are told apart: a damaged file, or one that needs more memory than there is."""

import pytest
from PIL import UnidentifiedImageError

from imaging.errors import DamagedImageError, ImageTooLargeError, UnsupportedImageError
from imaging.formats.stored_image import reporting_damage


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("Pixel allocation failed: Out of memory"),
        RuntimeError("Memory allocation error: Unspecified: Allocating 1008015 bytes failed"),
        RuntimeError("Memory allocation error: Security limit exceeded: Image size 600x600 exceeds 65536"),
        ValueError("Internal error (unexpected C++ exception)"),
        OSError("out of memory error when reading image file"),
        OSError("Insufficient memory (case 4)"),
    ],
    ids=str,
)
def test_a_decoder_that_runs_out_of_memory_says_that_the_picture_is_too_large(error: Exception) -> None:
    with (
        pytest.raises(ImageTooLargeError, match="more memory than it may take; scale the picture down"),
        reporting_damage("AVIF"),
    ):
        raise error


@pytest.mark.parametrize(
    "error", [OSError("image file is truncated"), UnidentifiedImageError("?"), ValueError(), KeyError(7)], ids=repr
)
def test_any_other_failure_is_damage(error: Exception) -> None:
    with pytest.raises(DamagedImageError, match="damaged or cut short"), reporting_damage("PNG"):
        raise error


def test_errors_of_pictures_pass() -> None:
    with pytest.raises(UnsupportedImageError), reporting_damage("PNG"):
        raise UnsupportedImageError("this is a painting", "send a picture")
