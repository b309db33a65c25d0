"""What a rectified picture in its own resolution costs, beside decoding the upload and a plain prediction.

    python -m benchmarks.inference.rectified [--model signs] [--pixels 12000000] [--rounds 9]

prints a Markdown table for a photograph of noise on slow colours, as JPEG of quality 90. Ways are measured in turns, in
one process, without HTTP. Times are those of the processor, the least of all rounds. Decoding is that of Pillow alone,
with its `exif_transpose`. What is added is the difference to a plain prediction. Memory is the peak beyond what the
process holds before.
"""

import argparse
import asyncio
import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import process_time

import numpy as np
from PIL import Image, ImageOps

from service.inference.engine import Engine
from service.inference.preprocessing import Upload
from service.inference.rectified.options import RectifiedOptions
from service.repository.startup import load_models
from service.settings import Settings
from tests.service.pictures import save

MIB = 2**20
QUALITY = 90


def photograph(pixels: int) -> Image.Image:
    """Slow colours and the noise of a camera, 4 to 3."""
    random = np.random.default_rng(0)
    height = round((pixels * 3 / 4) ** 0.5)
    size = height * 4 // 3, height
    colours = Image.fromarray(random.integers(0, 256, (45, 60, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noise = random.integers(-6, 7, (size[1], size[0], 3), np.int16)
    return Image.fromarray(np.clip(np.asarray(colours) + noise, 0, 255).astype(np.uint8))


def memory(line: str) -> int:
    """Memory of the process in bytes: VmRSS, or VmHWM, its peak since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{line}:")[2].split()[0]) * 1024


def forget_peak() -> None:
    """Measure the peak anew."""
    Path("/proc/self/clear_refs").write_text("5")


def decode_with_pillow(data: bytes) -> Image.Image:
    """The upright picture."""
    image = Image.open(io.BytesIO(data))
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return image


async def measure(options: argparse.Namespace) -> None:
    """Print the table."""
    settings = Settings(models=options.models, device="cpu", load=options.model, decode_processes=0)
    engine = Engine(load_models(settings), settings)
    model = engine.find()
    image = photograph(options.pixels)
    plain = save(image, "JPEG", quality=QUALITY)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = save(image, "JPEG", quality=QUALITY, exif=exif.tobytes())
    del image

    def predict(data: bytes, rectified: RectifiedOptions | None = None) -> Callable[[], Awaitable[object]]:
        return lambda: engine.predict(model, Upload(data, None), rectified, 60_000)

    def decoding(data: bytes) -> Callable[[], Awaitable[object]]:
        return lambda: asyncio.to_thread(decode_with_pillow, data)

    small = RectifiedOptions("jpeg", (512, 512))
    source = RectifiedOptions("jpeg", "source")
    found = (await engine.predict(model, Upload(plain, None), source, 60_000)).rectified or []
    regions = ", ".join(f"{file.width} x {file.height}" for file in found)
    print(f"model {model.name}/{model.version}, JPEG of {len(plain):,} bytes, rectified to {regions}\n")
    print("| what | ms | to decoding | added, to decoding | turned by EXIF: ms | to decoding | added | memory |")
    print("|---|---|---|---|---|---|---|---|")
    ways: dict[str, Callable[[bytes], Callable[[], Awaitable[object]]]] = {
        "decoding": decoding,
        "a plain prediction": predict,
        "rectified, 512 x 512, JPEG": lambda data: predict(data, small),
        "rectified, source, JPEG": lambda data: predict(data, source),
        "rectified, source, PNG": lambda data: predict(data, source._replace(format="png")),
        "rectified, source, WebP": lambda data: predict(data, source._replace(format="webp")),
    }
    files = (plain, turned)
    best = {(name, file): float("inf") for name in ways for file in files}
    most = dict.fromkeys(ways, 0)
    for _ in range(options.rounds):
        for name, way in ways.items():
            for file in files:
                forget_peak()
                before, started = memory("VmRSS"), process_time()
                await way(file)()
                best[name, file] = min(best[name, file], process_time() - started)
                most[name] = max(most[name], memory("VmHWM") - before)
    for name in ways:
        cells = []
        for file in files:
            took, decoded, plain_s = (best[each, file] for each in (name, "decoding", "a plain prediction"))
            cells.append(f"{took * 1000:.0f} | {took / decoded:.2f} | {max(0, took - plain_s) / decoded:.2f}")
        print(f"| {name} | {' | '.join(cells)} | +{most[name] // MIB} MiB |")
    await engine.close()


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--model", default="signs")
    parser.add_argument("--pixels", type=int, default=12_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
