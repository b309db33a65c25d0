"""Limits of work: files are refused by their structure, and ordinary ones of the same kinds are not."""

import contextlib
import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from imaging.decoding import decode, examine_image, open_examined
from imaging.errors import ImageError, ImageTooLargeError
from imaging.limits.cost import Cost
from imaging.limits.limits import Limits
from tests.imaging.formats.test_pillow_formats import heic
from tests.imaging.limits import attacks
from tests.imaging.limits.attacks import LONG_WORK, REFUSED, chunk, png, progressive, save, tiff, zeros

PHOTOGRAPH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)).resize((800, 600))
ORDINARY: dict[str, tuple[str, str, dict[str, object]]] = {
    "baseline JPEG": ("RGB", "JPEG", {}),
    "progressive JPEG": ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
    "grey JPEG": ("L", "JPEG", {}),
    "CMYK JPEG": ("CMYK", "JPEG", {}),
    "JPEG with restarts": ("RGB", "JPEG", {"restart_marker_blocks": 1}),
    "JPEG with a profile": ("RGB", "JPEG", {"icc_profile": bytes(500_000)}),
    "PNG": ("RGB", "PNG", {}),
    "PNG with alpha": ("RGBA", "PNG", {}),
    "PNG with a palette": ("P", "PNG", {}),
    "GIF": ("P", "GIF", {"comment": b"hello" * 100}),
    "BMP": ("RGB", "BMP", {}),
    "lossy WebP": ("RGB", "WEBP", {}),
    "lossless WebP": ("RGBA", "WEBP", {"lossless": True}),
    "PPM": ("RGB", "PPM", {}),
    "plain TIFF": ("RGB", "TIFF", {}),
    "TIFF, LZW": ("RGB", "TIFF", {"compression": "tiff_lzw"}),
    "TIFF, deflate": ("RGBA", "TIFF", {"compression": "tiff_adobe_deflate"}),
    "TIFF, JPEG": ("RGB", "TIFF", {"compression": "jpeg"}),
    "TIFF, group 4": ("1", "TIFF", {"compression": "group4"}),
}


def cost(data: bytes, limits: Limits | None = None) -> Cost:
    return examine_image(data, limits or Limits()).cost


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_would_cost_too_much_is_refused_before_it_is_decoded(name: str) -> None:
    with pytest.raises(ImageTooLargeError) as caught:
        cost(REFUSED[name]())
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", LONG_WORK)
def test_work_that_is_allowed_for_is_known(name: str) -> None:
    assert 0.25 < cost(LONG_WORK[name]()).seconds < Limits().max_seconds


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_picture_is_no_long_work(name: str) -> None:
    mode, picture_format, options = ORDINARY[name]
    data = save(PHOTOGRAPH.convert(mode), picture_format, **options)
    found = cost(data)
    assert (found.width, found.height) == PHOTOGRAPH.size
    assert found.seconds < 0.1
    assert PHOTOGRAPH.width * PHOTOGRAPH.height <= found.bytes <= PHOTOGRAPH.width * PHOTOGRAPH.height * 20
    assert decode(open_examined(examine_image(data, Limits()))).size == PHOTOGRAPH.size


@pytest.mark.parametrize("name", ORDINARY)
def test_the_largest_ordinary_picture_is_within_the_limits_that_are_derived_from_its_pixels(name: str) -> None:
    mode, picture_format, options = ORDINARY[name]
    found = cost(save(PHOTOGRAPH.convert(mode), picture_format, **options))
    times = Limits().max_pixels / found.pixels
    assert found.bytes * times <= Limits().max_bytes
    assert found.seconds * times <= Limits().max_seconds


def test_the_message_names_the_limit_the_setting_and_the_cure() -> None:
    with pytest.raises(ImageTooLargeError, match=r"20000 x 8 pixels, at most 16384 .*\(max_side\); scale it down"):
        cost(png(20_000, 8))
    with pytest.raises(ImageTooLargeError, match=r"200 x 51 pixels, at most 10000 .*\(max_pixels\); scale it down"):
        cost(png(200, 51), Limits(max_pixels=10_000))
    with pytest.raises(ImageTooLargeError, match=r"91 scans of together .* save it again"):
        cost(progressive(7000, 7000, 90))


def test_sides_up_to_the_limit_are_taken() -> None:
    limits = Limits(max_side=300)
    assert cost(png(300, 2), limits).width == 300
    for data in (png(301, 2), png(2, 301)):
        with pytest.raises(ImageTooLargeError):
            cost(data, limits)


def test_few_pixels_leave_room_for_tiles_but_not_for_any() -> None:
    limits = Limits(max_pixels=1000)
    assert cost(tiff((16, 16), zeros(2**18), tile=(512, 512)), limits).bytes < limits.max_bytes
    with pytest.raises(ImageTooLargeError, match="5000 x 5000"):
        cost(tiff((16, 16), zeros(2**20), tile=(5000, 5000)), limits)


def test_twenty_scans_of_a_large_photograph_are_taken() -> None:
    assert cost(progressive(7000, 7000, 20)).seconds < Limits().max_seconds


def test_markers_inside_of_a_scan_and_of_a_segment_are_no_scans() -> None:
    thumbnail = progressive(64, 64, 90)
    data = save(PHOTOGRAPH, "JPEG", progressive=True)
    inside = data[:20] + attacks.segment(0xED, thumbnail) * 3 + data[20:]
    assert cost(inside).seconds < cost(data).seconds + 0.1


def test_a_frame_of_less_than_all_components_in_a_scan_is_counted_by_its_scans() -> None:
    few, many = cost(attacks.several_scans(4000, 4000, 3)), cost(attacks.several_scans(4000, 4000, 90))
    assert many.seconds > few.seconds * 5


def test_restarts_and_fill_bytes_are_found_in_time_in_proportion() -> None:
    data = progressive(64, 64, 3)
    for filling in (b"\xff\x00", b"\xff\xd0", b"\xff\xff"):
        assert cost(data[:-2] + filling * 1_000_000 + b"\xff\xd9").pixels == 64 * 64


def test_big_endian_and_big_tiff_files_are_read_alike() -> None:
    grey = Image.new("I;16B", (90, 70))
    found = cost(save(grey, "TIFF", big_tiff=True)), cost(save(grey, "TIFF"))
    assert [(each.width, each.height) for each in found] == [(90, 70)] * 2


def test_the_larger_of_two_entries_counts_since_readers_differ_in_which_they_take() -> None:
    entries: attacks.Entries = [(256, attacks.LONG, [60_000])]
    with pytest.raises(ImageTooLargeError, match="60000"):
        cost(tiff((16, 16), zeros(256), besides=entries))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF"])
def test_whatever_is_cut_off_or_changed_is_examined_without_a_defect(kind: str) -> None:
    data = save(PHOTOGRAPH.resize((40, 30)), kind, **({"exif": Image.Exif()} if kind in ("JPEG", "TIFF") else {}))
    random = np.random.default_rng(3)
    for _ in range(300):
        changed = bytearray(data[: random.integers(1, len(data) + 1)])
        for place in random.integers(0, min(len(changed), 400), 3):
            changed[place] = random.integers(0, 256)
        with contextlib.suppress(ImageError):
            cost(bytes(changed))


@pytest.mark.parametrize("make", [lambda: b"", lambda: png(4, 4, besides=chunk(b"eXIf", b"II*\0")), lambda: b"BM"])
def test_very_short_files_are_examined_without_a_defect(make: Callable[[], bytes]) -> None:
    with contextlib.suppress(ImageError):
        cost(make())


def test_a_picture_of_heic_or_avif_is_known_to_be_unbounded() -> None:
    content = io.BytesIO()
    PHOTOGRAPH.save(content, "AVIF")
    found = cost(content.getvalue())
    assert not found.bounded
    assert (found.width, found.height) == PHOTOGRAPH.size


def test_a_lossless_webp_that_may_have_many_huffman_codes_is_known_to_be_unbounded() -> None:
    for side in (512, 1024):
        still = attacks.webp_of_many_codes(side)
        assert not cost(still).bounded
        assert not cost(attacks.animated_webp(still, side, side, side)).bounded
    few = attacks.webp_of_many_codes(128)
    assert cost(few).bytes > 128 * 128 * 20 + 1024 * 5000, (
        "libwebp makes at least 5 kB of tables for each of 1024 groups"
    )
    for lossless in (False, True):
        assert cost(save(PHOTOGRAPH.resize((200, 150)), "WEBP", lossless=lossless)).bounded


def test_a_file_of_many_huffman_codes_is_read() -> None:
    assert decode(open_examined(examine_image(attacks.webp_of_many_codes(128), Limits()))).size == (128, 128)


def avif(side: int) -> bytes:
    return save(PHOTOGRAPH.resize((side, side)), "AVIF", speed=10)


@pytest.mark.parametrize("make", [avif, lambda side: heic(np.asarray(PHOTOGRAPH.resize((side, side))))])
def test_a_stream_of_another_size_than_declared_is_not_taken_for_bounded(
    make: Callable[[int], bytes],
) -> None:
    data = make(300)
    for width, height in ((16, 16), (299, 300), (600, 600)):
        examined = examine_image(attacks.declared(data, width, height), Limits())
        assert not examined.cost.bounded
        with contextlib.suppress(ImageError):
            assert decode(open_examined(examined)).size == (width, height)
    with pytest.raises(ImageTooLargeError, match="60000 x 60000"):
        cost(attacks.declared(data, 60_000, 60_000))


def test_a_heic_stream_that_is_far_larger_than_declared_is_too_large() -> None:
    data = attacks.declared(heic(np.asarray(PHOTOGRAPH)), 16, 16)
    with pytest.raises(ImageTooLargeError, match="more memory than it may take"):
        decode(open_examined(examine_image(data, Limits())))


def test_alpha_of_a_lossy_webp_may_have_many_huffman_codes_too() -> None:
    glass = PHOTOGRAPH.convert("RGBA")
    glass.putalpha(PHOTOGRAPH.convert("L"))
    assert not cost(save(glass, "WEBP")).bounded
    assert cost(save(glass.resize((200, 150)), "WEBP")).bounded
