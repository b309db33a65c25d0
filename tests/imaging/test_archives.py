"""A damaged tar is an error of `tarfile`, whatever is wrong in its headers."""

import io
import tarfile

import pytest

from imaging.archives import StrictTarInfo


def block(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    header = tarfile.TarInfo(name)
    header.size, header.type = size, kind
    return header.tobuf(tarfile.GNU_FORMAT)


def names(content: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:", tarinfo=StrictTarInfo) as archive:
        return archive.getnames()


def pax(record: bytes) -> bytes:
    """A header with one record in front of an empty file."""
    text = b"%d %s\n" % (len(record) + 4, record)
    return block("pax", len(text), tarfile.XHDTYPE) + text.ljust(512, b"\0") + block("a.png", 0) + bytes(1024)


def test_a_whole_tar_is_read() -> None:
    assert names(block("a.png", 3) + b"abc".ljust(512, b"\0") + block("b.png", 0) + bytes(1024)) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    "content",
    [
        block("a.png", -512),
        block("a.png", 0) + block("b.png", -512),
        pax(b"size=-512"),
        pax(b"GNU.sparse.map=x"),
        block("long", 2**62, tarfile.GNUTYPE_LONGLINK),
        block("long", 0, tarfile.GNUTYPE_LONGLINK) * 3000 + block("a.png", 0),
        block("sparse", 0, tarfile.GNUTYPE_SPARSE)[:482] + b"\1" + bytes(29),
    ],
    ids=["negative", "second negative", "negative in pax", "sparse map", "long name", "chain", "cut sparse map"],
)
def test_a_damaged_header_is_a_read_error(content: bytes) -> None:
    with pytest.raises(tarfile.ReadError):
        names(content)
