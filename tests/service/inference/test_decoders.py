import asyncio
import gc
import threading
import time
import weakref

import pytest
from PIL import Image
from starlette.requests import ClientDisconnect

from export.format.artifact import ImageInput
from imaging.decoding import examine_image
from imaging.limits.limits import Limits
from service.errors import DeadlineExceededError, UnsupportedMediaTypeError
from service.inference.decoders import WITH_SPARE_CORE, WITHOUT_SPARE_CORE, Decoders, fits, while_client_waits
from service.inference.preprocessing import Upload
from service.request_context import RequestContext, current
from service.settings import load_settings
from tests.imaging.limits.attacks import exif, png, progressive, save, with_segments
from tests.service.loops import on_a_loop

INPUT = ImageInput(name="image", height=4, width=4, channels=1, resize="bilinear", background=(0,))
LARGE = save(Image.new("RGB", (400, 300)), "PNG")


class Watched(ImageInput):
    """An input that knows whether a picture was decoded for it."""

    def __getattribute__(self, name: str) -> object:
        if name == "height":
            SEEN.append(name)
        return super().__getattribute__(name)


SEEN: list[str] = []


@pytest.mark.parametrize(
    "data",
    [
        save(Image.new("L", (28, 28)), "PNG"),
        save(Image.new("RGB", (128, 128)), "JPEG"),
        save(Image.new("RGB", (64, 64)), "JPEG", progressive=True),
        save(Image.new("RGBA", (48, 48)), "WEBP"),
        save(Image.new("P", (48, 48)), "GIF"),
        save(Image.new("RGB", (48, 48)), "TIFF"),
    ],
    ids=["PNG", "JPEG", "progressive JPEG", "WebP", "GIF", "TIFF"],
)
def test_small_pictures_are_decoded_on_the_event_loop(data: bytes) -> None:
    assert fits(examine_image(data, Limits()).cost, WITH_SPARE_CORE)


@pytest.mark.parametrize(
    "data",
    [
        progressive(128, 128, 90),
        with_segments(exif(7000)),
        png(200, 200),
        save(Image.new("RGB", (48, 48)), "AVIF"),
    ],
    ids=["JPEG of many scans", "JPEG of long metadata", "PNG of many pixels", "AVIF"],
)
def test_small_files_of_much_work_are_not_decoded_on_the_event_loop(data: bytes) -> None:
    assert len(data) < 2**16
    assert not fits(examine_image(data, Limits()).cost, WITH_SPARE_CORE)


def test_a_photograph_is_decoded_on_the_event_loop_if_a_thread_could_only_take_turns_with_it() -> None:
    cost = examine_image(save(Image.new("RGB", (480, 360)), "JPEG"), Limits()).cost
    assert not fits(cost, WITH_SPARE_CORE)
    assert fits(cost, WITHOUT_SPARE_CORE)


def test_a_picture_that_waits_for_a_thread_past_its_deadline_is_not_decoded() -> None:
    release = threading.Event()

    async def wait() -> None:
        decoders = Decoders(load_settings(["--decode-threads", "1"], {}))
        blocked = asyncio.create_task(decoders.in_thread(release.wait))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceededError):
            watched = Watched(**INPUT.model_dump())
            SEEN.clear()
            await decoders.read(Upload(LARGE, None), watched, time.perf_counter() + 0.05)
        release.set()
        await blocked
        await decoders.in_thread(lambda: None)
        await decoders.close()

    asyncio.run(wait())
    assert not SEEN


def test_a_client_that_leaves_ends_the_decoding_of_its_picture() -> None:
    ended = []

    async def sleep() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("sleep")
            raise

    async def wait() -> None:
        context = RequestContext("id")
        current.set(context)
        reading = asyncio.create_task(while_client_waits(sleep()))
        await asyncio.sleep(0.01)
        context.disconnect()
        with pytest.raises(ClientDisconnect):
            await reading

    asyncio.run(wait())
    assert ended == ["sleep"]


def test_a_client_that_leaves_frees_the_process_that_decodes() -> None:
    async def wait() -> None:
        decoders = Decoders(load_settings(["--decode-processes", "1"], {}))
        warm = save(Image.new("RGB", (16, 16)), "AVIF")
        await decoders.read(Upload(warm, None), INPUT, time.perf_counter() + 60)
        context = RequestContext("id")
        current.set(context)
        long = Upload(progressive(7000, 7000, 50), None)
        reading = asyncio.create_task(decoders.read(long, INPUT, time.perf_counter() + 600))
        await asyncio.sleep(0.5)
        context.disconnect()
        with pytest.raises(ClientDisconnect):
            await reading
        current.set(None)
        picture = await decoders.read(Upload(warm, None), INPUT, time.perf_counter() + 60)
        assert picture.width == 16
        await decoders.close()

    asyncio.run(wait())


@on_a_loop
async def test_a_refused_picture_leaves_nothing_for_the_garbage_collector() -> None:
    decoders = Decoders(load_settings([], {}))
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(UnsupportedMediaTypeError) as refused:
            await decoders.read(Upload(bytes(200_000) + b"x", None), INPUT, time.perf_counter() + 60)
        error = weakref.ref(refused.value)
        del refused
        assert error() is None
    finally:
        gc.enable()
        await decoders.close()
