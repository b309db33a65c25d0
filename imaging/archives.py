"""Tars of pictures, read strictly."""

import tarfile
from typing import Self

DAMAGE = (ValueError, ArithmeticError, LookupError, MemoryError, RecursionError)
"""What `tarfile` raises, besides its own errors, for numbers, sparse maps and chains of headers that are wrong."""


class StrictTarInfo(tarfile.TarInfo):
    """A header of an archive. `tarfile` takes a damaged one for the end of the archive; here it is an error."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            found = super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]  # typeshed lacks it
                raise
            raise tarfile.ReadError(str(error)) from error
        except DAMAGE as error:
            raise tarfile.ReadError(f"damaged header: {error}") from error
        if found.size < 0:
            raise tarfile.ReadError("negative size")
        return found
