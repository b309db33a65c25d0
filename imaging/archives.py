"""Tars of pictures, read strictly."""

import tarfile
from typing import Self


class StrictTarInfo(tarfile.TarInfo):
    """A header of an archive. `tarfile` takes a damaged one for the end of the archive; here it is an error."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]  # typeshed lacks it
                raise
            raise tarfile.ReadError(str(error)) from error
