"""What bodies cost that are made to cost much: the longest stall and the memory of a real service while they are sent.

    python -m benchmarks.body_costs            # all, in Markdown
    python -m benchmarks.body_costs json gzip  # those with one of these words in their names

Each attack is sent three times to a service of its own. Meanwhile /health/live is asked every five milliseconds on
another connection. Its slowest answer is the stall; the least of the three counts. Memory is the peak of the process
above what it had after a few predictions.
"""

import asyncio
import gzip
import io
import json
import re
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
from PIL import Image

MODEL, INFER = "digits", "/v2/models/digits/infer"
BODY = 10 * 2**20
"""Bytes of the largest body of /predict and of the largest JSON."""
BATCH = 64 * 2**20
EVERY_S = 0.005
SENT = 3
"""Times that an attack is sent. The least of the stalls counts, since other processes on the machine only add to it."""
BOUNDARY = b"frontier"
FORM = {"content-type": "multipart/form-data; boundary=frontier"}
JSON = {"content-type": "application/json"}
GZIP = {"content-encoding": "gzip"}

Headers = dict[str, str]


class Attack(NamedTuple):
    """A request that is cheap to make."""

    path: str
    content: Callable[[], bytes]
    headers: Headers


class Cost(NamedTuple):
    """What an attack came to."""

    sent: int
    status: int
    seconds: float
    stall_ms: float
    peak_mb: float


def fill(head: bytes, piece: bytes, tail: bytes = b"", size: int = BODY) -> bytes:
    """``piece`` between ``head`` and ``tail``, as often as ``size`` bytes hold it."""
    return head + piece * ((size - len(head) - len(tail)) // len(piece)) + tail


def part(headers: bytes, content: bytes) -> bytes:
    """A part of a form."""
    return b"--" + BOUNDARY + b"\r\n" + headers + b"\r\n\r\n" + content + b"\r\n"


def picture() -> bytes:
    """A small picture as a PNG file."""
    content = io.BytesIO()
    Image.fromarray(np.zeros((42, 42), np.uint8)).save(content, "PNG")
    return content.getvalue()


FILE = b'Content-Disposition: form-data; name="image"; filename="a.png"'
TEXT = b'Content-Disposition: form-data; name="top_k"'
CLOSING = b"--" + BOUNDARY + b"--\r\n"
INPUT = b'{"name":"image","shape":[1],"datatype":"UINT8"'


def empty_blocks() -> bytes:
    """A deflate stream that inflates to nothing: stored blocks without any text."""
    return b"\x78\x9c" + b"\0\0\0\xff\xff" * (BODY // 5 - 10)


def tables() -> bytes:
    """A deflate stream of blocks that are hardly more than the tables of their codes."""
    compressor = zlib.compressobj(9)
    text = bytes(range(256)) + bytes(64)
    blocks = b"".join(
        compressor.compress(text[n:] + text[:n]) + compressor.flush(zlib.Z_FULL_FLUSH) for n in range(256)
    )
    return fill(blocks, blocks[2:])


def json_attack(path: str, head: bytes, piece: bytes, tail: bytes) -> dict[str, Attack]:
    """An attack by JSON, plain and, where that is taken, compressed."""

    def content() -> bytes:
        return fill(head, piece, tail)

    headers = JSON if path == "/predict" else {}
    plain = {"": Attack(path, content, headers)}
    if path != INFER:
        return plain
    return plain | {", gzip": Attack(path, lambda: gzip.compress(content(), 9), GZIP)}


PIECES: dict[str, tuple[str, bytes, bytes, bytes]] = {
    "lists": ("/predict", b"[", b"[],", b"[]]"),
    "a text of escapes": ("/predict", b'{"image":"', b"\\n", b'"}'),
    "a text of white space": ("/predict", b'{"image":"', b"aa ", b'"}'),
    "the largest base64": ("/predict", b'{"image":"', b"AAAA", b'"}'),
    "a number": ("/predict", b'{"image":', b"9", b"}"),
    "the same key": ("/predict", b"{", b'"image":"",', b'"image":""}'),
    "inputs of nothing": (INFER, b'{"inputs":[', b"{},", b"{}]}"),
    "inputs": (INFER, b'{"inputs":[', INPUT + b"},", INPUT + b"}]}"),
    "outputs": (INFER, b'{"inputs":[' + INPUT + b'}],"outputs":[', b'{"name":"a"},', b'{"name":"a"}]}'),
    "parameters": (INFER, b'{"inputs":[],"parameters":{', b'"aaaaaaa":1,', b'"a":1}}'),
    "shape": (INFER, b'{"inputs":[{"name":"image","datatype":"UINT8","shape":[', b'"a",', b'"a"]}]}'),
    "data of lists": (INFER, b'{"inputs":[' + INPUT + b',"data":[', b"[],", b"[]]}]}"),
    "data of numbers": (INFER, b'{"inputs":[' + INPUT + b',"data":[', b"0,", b"0]}]}"),
    "data of one number": (INFER, b'{"inputs":[' + INPUT + b',"data":[', b"9", b"]}]}"),
    "data of depth": (INFER, b'{"inputs":[' + INPUT + b',"data":', b"[", b""),
    "data of texts": (INFER, b'{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","data":[', b'"",', b'""]}]}'),
    "a field that is not known": (INFER, b'{"inputs":[],"x":[', b"{},", b"{}]}"),
    "a key": (INFER, b'{"', b"x", b'":1}'),
}

ATTACKS: dict[str, Attack] = {
    f"JSON of {name}{form}": attack for name, pieces in PIECES.items() for form, attack in json_attack(*pieces).items()
} | {
    "gzip of zeros": Attack(INFER, lambda: gzip.compress(bytes(2**30), 9), GZIP),
    "deflate of empty blocks": Attack(INFER, empty_blocks, {"content-encoding": "deflate"}),
    "deflate of tables": Attack(INFER, tables, {"content-encoding": "deflate"}),
    "gzip of noise, 64 MiB": Attack(
        INFER,
        lambda: gzip.compress(np.random.default_rng(0).bytes(BATCH - 2**20), 1),
        GZIP | {"inference-header-content-length": "2"},
    ),
    "form with a charset": Attack(
        "/predict",
        lambda: part(TEXT, b"a" * 1_300_000 + b"-" + b"A" * 9) + part(FILE, picture()) + CLOSING,
        {"content-type": "multipart/form-data; boundary=frontier; charset=punycode"},
    ),
    "form of heads": Attack("/predict", lambda: part(FILE + b"\r\nX: " + b";a=" * 2600, b"") * 16 + CLOSING, FORM),
    "form of parts": Attack("/predict", lambda: part(FILE, b"") * 90_000 + CLOSING, FORM),
    "form of boundaries": Attack("/predict", lambda: part(FILE, b"\r\n--frontie" * 900_000) + CLOSING, FORM),
    "form of 256 pictures, 64 MiB": Attack(
        "/predict/batch",
        lambda: part(FILE.replace(b'"image"', b'"images"'), bytes(BATCH // 256 - 200)) * 256 + CLOSING,
        FORM,
    ),
    "form of one part, 64 MiB": Attack(
        "/predict/batch", lambda: part(FILE.replace(b'"image"', b'"images"'), bytes(BATCH - 200)) + CLOSING, FORM
    ),
    "query of options": Attack("/predict?" + "&".join(f"a{n}" for n in range(9_000)), picture, {}),
}


def start() -> tuple["subprocess.Popen[str]", str]:
    """A service on a free port, and its address."""
    command = [sys.executable, "-m", "service", "--port", "0", "--access-log", "none"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    found = re.search(r"at (http\S+)", process.stdout.readline())
    assert found is not None, "the service did not start"
    return process, found[1]


def peak_mb(process: "subprocess.Popen[str]") -> float:
    """The most memory that the process has had."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


async def measure(attack: Attack) -> Cost:
    """Send an attack to a service of its own, several times."""
    content = attack.content()
    process, url = start()
    try:
        async with httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(120)) as client:
            for _ in range(3):
                (await client.post("/predict", content=picture())).raise_for_status()
            before = peak_mb(process)
            stalls, status, seconds = [], 0, 0.0
            for _ in range(SENT):
                sending = asyncio.create_task(send_elsewhere(url, attack, content))
                stalls.append(await stall_until(sending, client))
                status, seconds = await sending
            return Cost(len(content), status, seconds, min(stalls) * 1000, peak_mb(process) - before)
    finally:
        process.terminate()
        process.wait()


async def stall_until(sending: "asyncio.Task[tuple[int, float]]", client: httpx.AsyncClient) -> float:
    """The seconds of the slowest answer of /health/live until the attack is answered."""
    stall = 0.0
    while not sending.done():
        started = time.perf_counter()
        await client.get("/health/live")
        stall = max(stall, time.perf_counter() - started)
        await asyncio.sleep(EVERY_S)
    return stall


async def send_elsewhere(url: str, attack: Attack, content: bytes) -> tuple[int, float]:
    """Status and seconds of an attack that another process sends, so as not to slow the one that measures."""
    command = (sys.executable, "-m", "benchmarks.body_costs", "--send", url + attack.path, json.dumps(attack.headers))
    pipe = asyncio.subprocess.PIPE
    sender = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    answer = json.loads((await sender.communicate(content))[0])
    return answer["status"], answer["seconds"]


def send(url: str, headers: str) -> None:
    """Send what comes on stdin, and print what comes of it."""
    content = sys.stdin.buffer.read()
    started = time.perf_counter()
    try:
        status = httpx.post(url, content=content, headers=json.loads(headers), timeout=120).status_code
    except httpx.TransportError:  # refused before it was sent
        status = 0
    print(json.dumps({"status": status, "seconds": time.perf_counter() - started}))


def chosen(words: list[str]) -> Iterator[str]:
    """The attacks with one of ``words`` in their names; all if there are none."""
    return (name for name in ATTACKS if not words or any(word in name for word in words))


def main() -> None:
    """Print a table."""
    if sys.argv[1:2] == ["--send"]:
        send(*sys.argv[2:])
        return
    print("| body | bytes sent | status | answered after (s) | longest stall (ms) | memory (MB) |")
    print("|---|---|---|---|---|---|")
    for name in chosen(sys.argv[1:]):
        cost = asyncio.run(measure(ATTACKS[name]))
        print(
            f"| {name} | {cost.sent} | {cost.status} | {cost.seconds:.2f} | {cost.stall_ms:.0f} | {cost.peak_mb:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
