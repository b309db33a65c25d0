"""Compressed request bodies: taken as if they were not, and refused before a small one becomes a large one."""

import asyncio
import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.api.open_inference.compression import inflate
from service.errors import QueueFullError, TooLargeError
from service.inference.admission import CapacityLimiter, Permit
from tests.conftest import Service, start_service
from tests.service.api.open_inference.exchange import INFER, JSON_LENGTH, binary, golden, refused, tensor, tensors
from tests.service.pictures import GOLDEN_PICTURES

JSON = json.dumps({"inputs": [tensor()]}).encode()
HEAD = json.dumps({"inputs": [binary()]}).encode()
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
}
LIMIT = 2**20
MEGABYTES = 1000


@pytest.mark.parametrize("encoding", ENCODERS)
def test_json_and_binary_bodies_may_be_compressed(server: Service, encoding: str) -> None:
    encode = ENCODERS[encoding]
    headers = {"Content-Encoding": encoding}
    golden(tensors(server.client.post(INFER, content=encode(JSON), headers=headers)))
    content = encode(HEAD + GOLDEN_PICTURES.tobytes())
    golden(tensors(server.client.post(INFER, content=content, headers=headers | {JSON_LENGTH: str(len(HEAD))})))


@pytest.mark.parametrize("encoding", ["identity", "", "GZIP"])
def test_encodings_are_read_as_http_has_them(server: Service, encoding: str) -> None:
    content = gzip.compress(JSON) if "GZIP" in encoding else JSON
    golden(tensors(server.client.post(INFER, content=content, headers={"Content-Encoding": encoding})))


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "nonsense", "x" * 5000])
def test_an_encoding_that_is_not_taken_is_refused_with_the_cure(server: Service, encoding: str) -> None:
    response = server.client.post(INFER, content=JSON, headers={"Content-Encoding": encoding})
    refused(response, 415, "send gzip, deflate or none")


@pytest.mark.parametrize(
    ("content", "encoding", "says"),
    [
        (b"", "gzip", "truncated"),
        (gzip.compress(JSON)[:-1], "gzip", "truncated"),
        (zlib.compress(JSON)[:-1], "deflate", "truncated"),
        (gzip.compress(JSON) + b"x", "gzip", "after the end"),
        (gzip.compress(JSON) + bytes(200_000), "gzip", "after the end"),
        (JSON, "gzip", "is not gzip"),
        (zlib.compress(JSON), "gzip", "is not gzip"),
        (gzip.compress(JSON), "deflate", "is not deflate"),
        (gzip.compress(JSON)[:20] + b"x" + gzip.compress(JSON)[21:], "gzip", "gzip"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_body_is_refused(server: Service, content: bytes, encoding: str, says: str) -> None:
    refused(server.client.post(INFER, content=content, headers={"Content-Encoding": encoding}), 400, says)


def bomb(encoding: str) -> bytes:
    """A thousand megabytes of zeros in one."""
    compressor = zlib.compressobj(9, wbits=31 if encoding == "gzip" else 15)
    return b"".join([*(compressor.compress(bytes(2**20)) for _ in range(MEGABYTES)), compressor.flush()])


@pytest.fixture(scope="module")
def own() -> Iterator[Service]:
    """A service whose memory is looked at."""
    with start_service() as service:
        yield service


def peak(service: Service) -> int:
    """The most memory that it has ever had, in bytes."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_refused_without_being_inflated(own: Service, encoding: str) -> None:
    content = bomb(encoding)
    before = peak(own)
    for headers in {}, {JSON_LENGTH: "100"}:
        response = own.client.post(INFER, content=content, headers={"Content-Encoding": encoding} | headers)
        refused(response, 413, "scale the picture down, or send fewer")
    assert peak(own) - before < MEGABYTES * 2**20 / 4
    golden(tensors(own.client.post(INFER, content=JSON)))


def test_what_is_inflated_takes_room_and_stops_where_there_is_none() -> None:
    room = CapacityLimiter(1, LIMIT, 1)

    def inflated(content: bytes, seat: Permit) -> bytes:
        return bytes(asyncio.run(inflate(zlib.compress(content), "deflate", LIMIT, seat, math.inf)))

    with Permit(room) as seat:
        assert inflated(bytes(LIMIT), seat) == bytes(LIMIT)
        assert room.bytes == LIMIT
        with Permit(room) as other, pytest.raises(QueueFullError):
            inflated(b"7", other)
    assert room.bytes == 0
    with Permit(room) as seat, pytest.raises(TooLargeError):
        inflated(bytes(LIMIT + 1), seat)
