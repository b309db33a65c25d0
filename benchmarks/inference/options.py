"""What each option, answers from the response cache, and frames of a stream cost beside a plain POST /predict.

    python -m benchmarks.inference.options [--model signs] [--pixels 2000000] [--rounds 9]

prints a Markdown table for a small picture and for a photograph, as JPEG. Ways are measured in turns, in one process,
from the query and the body to the bytes of the answer, without HTTP. Times are those of the processor, the median of
all rounds, divided by that of the plain prediction. Memory is the peak beyond what the process holds before.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from time import process_time
from urllib.parse import urlencode

from starlette.types import Message

from benchmarks.inference.rectified import MIB, QUALITY, forget_peak, memory, photograph
from service.api.predict import Predict
from service.api.request_body import Body
from service.api.stream import Stream
from service.app import create_state
from service.inference.rectified.memory import return_free_memory
from service.settings import Settings
from service.state import ServiceState
from tests.service.pictures import save

SMALL_PIXELS = 64 * 48
REGIONS = 8
CACHE_BYTES = 64 * MIB
HEADERS = [(b"content-type", b"image/jpeg")]

Way = Callable[[bytes], Awaitable[object]]


async def nothing() -> Message:
    """What else arrives of a body that is there."""
    raise AssertionError("the body is complete")


def regions(width: int, height: int, count: int) -> str:
    """A query for ``count`` regions, each a quarter of the picture."""
    shifts = [index / max(1, count - 1) / 2 for index in range(count)]
    boxes = [(shift * width, shift * height, (shift + 0.5) * width, (shift + 0.5) * height) for shift in shifts]
    return urlencode([("region", ",".join(f"{side:.1f}" for side in box)) for box in boxes])


def asking(predict: Predict, query: str = "", rectified: str = "none") -> Way:
    """Ask with ``query``, by default without a rectified image, which costs more than all else on a small picture."""
    whole = f"rectified={rectified}&{query}".rstrip("&").encode()
    return lambda picture: predict.answer_one(whole, Body(HEADERS, nothing, picture))


class Frames:
    """One connection to WS /stream, without a server."""

    def __init__(self, state: ServiceState) -> None:
        self._received: asyncio.Queue[Message] = asyncio.Queue()
        self._sent: asyncio.Queue[Message] = asyncio.Queue()
        scope = {"type": "websocket", "query_string": b"rectified=none", "headers": [], "policy": state.policy}
        self._received.put_nowait({"type": "websocket.connect"})
        self._task = asyncio.ensure_future(Stream(state)(scope, self._received.get, self._sent.put))

    async def ask(self, picture: bytes) -> None:
        """Send a frame and wait for its answer."""
        self._received.put_nowait({"type": "websocket.receive", "bytes": picture})
        while (await self._sent.get())["type"] != "websocket.send":
            pass

    async def close(self) -> None:
        """Leave."""
        self._received.put_nowait({"type": "websocket.disconnect"})
        await self._task


async def measure(options: argparse.Namespace) -> None:
    """Print the table."""
    common = {"models": options.models, "device": "cpu", "load": options.model, "decode_processes": 0}
    states = [create_state(Settings(**common)), create_state(Settings(**common, response_cache_bytes=CACHE_BYTES))]
    for state in states:
        await state.start()
    plain, cached = states
    predict, ask_cached, frames = Predict(plain), asking(Predict(cached)), Frames(plain)
    print("| picture | request | time, to a plain prediction | memory |")
    print("|---|---|---|---|")
    for pixels in (SMALL_PIXELS, options.pixels):
        image = photograph(pixels)
        picture = save(image, "JPEG", quality=QUALITY)
        name, size = f"{image.width} x {image.height}", image.size
        del image
        others = iter(picture + number.to_bytes(4, "big") for number in range((1 + options.rounds) * options.repeats))
        ways: dict[str, Way] = {
            "plain": asking(predict),
            "1 region, a quarter": asking(predict, regions(*size, 1)),
            f"{REGIONS} regions, a quarter each": asking(predict, regions(*size, REGIONS)),
            f"{REGIONS} plain requests": repeated(asking(predict), REGIONS),
            "angle_hint=30": asking(predict, "angle_hint=30"),
            "reliability=8": asking(predict, "reliability=8"),
            "views=8": asking(predict, "views=8"),
            "rectified image of the model, PNG": asking(predict, rectified="png"),
            "rectified_size=source, JPEG": asking(predict, "rectified_size=source", rectified="jpeg"),
            "frame of a stream": frames.ask,
            "response cache, miss": lambda _: ask_cached(next(others)),  # noqa: B023 - used within the round
            "response cache, hit": ask_cached,
        }
        await ask_cached(picture)
        times: dict[str, list[float]] = {way: [] for way in ways}
        most = dict.fromkeys(ways, 0)
        for number in range(1 + options.rounds):
            for way, ask in ways.items():
                return_free_memory()
                forget_peak()
                before, started = memory("VmRSS"), process_time()
                for _ in range(options.repeats):
                    await ask(picture)
                if not number:
                    continue  # the first round warms up
                times[way].append(process_time() - started)
                most[way] = max(most[way], memory("VmHWM") - before)
        for way in ways:
            print(
                f"| {name} | {way} | {median(times[way]) / median(times['plain']):.2f} | +{most[way] / MIB:.1f} MiB |"
            )
    await frames.close()
    for state in states:
        await state.stop()


def repeated(ask: Way, times: int) -> Way:
    """The same request several times."""

    async def again(picture: bytes) -> None:
        for _ in range(times):
            await ask(picture)

    return again


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--model", default="signs")
    parser.add_argument("--pixels", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=4, help="requests of each way in a round")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
