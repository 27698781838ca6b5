"""Bytes that are nearly a picture: an array or an `ImageError`, quickly, in little memory."""

import io
import struct
import threading
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import limited, no_warnings, state
from mutation import mutated
from pictures import encoded, scene, write_set
from PIL import Image

from jaxgear.data.folder.read import read_folder
from jaxgear.data.images import decode as images
from jaxgear.data.images import rgb
from jaxgear.data.images.decode import load_rgb
from jaxgear.data.images.descriptor import describe
from jaxgear.data.images.encoded import ImageError
from jaxgear.data.images.letterboxing import letterbox

PIXELS = scene(3, 20, 28)
EXIF = Image.Exif()
EXIF[0x0112], EXIF[0x010F], EXIF[0x8769] = 6, "maker", {0x9003: "2020:01:01 00:00:00"}


def converted(mode: str, kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, kind, **options)
    return file.getvalue()


def frames(kind: str, **options) -> bytes:
    more = [Image.fromarray(scene(k, 20, 28)) for k in (4, 5)]
    return encoded(PIXELS, kind, save_all=True, append_images=more, duration=100, **options)


def originals() -> list[bytes]:
    """Every kind of file that is read, small."""
    found = [
        encoded(PIXELS, "JPEG", quality=80),
        encoded(PIXELS, "JPEG", progressive=True, exif=EXIF, comment=b"hi", icc_profile=b"x" * 90),
        converted("L", "JPEG"),
        converted("CMYK", "JPEG"),
        encoded(PIXELS, "PNG"),
        *(converted(mode, "PNG") for mode in ("1", "L", "LA", "RGBA", "I;16")),
        converted("P", "PNG", transparency=bytes([0, 255, 7])),
        converted("RGB", "PNG", transparency=(1, 2, 3), exif=EXIF, dpi=(9, 9)),
        frames("PNG"),
        converted("P", "GIF", transparency=3, comment=b"hello"),
        frames("GIF"),
        encoded(PIXELS, "WEBP", quality=60),
        converted("RGBA", "WEBP", lossless=True, exif=EXIF.tobytes()),
        frames("WEBP"),
        encoded(PIXELS, "BMP"),
        *(encoded(PIXELS, "TIFF", compression=c) for c in (None, "tiff_lzw", "jpeg", "packbits")),
        converted("F", "TIFF"),
        converted("1", "TIFF", compression="group4"),
    ]  # fmt: skip
    return found + ([encoded(PIXELS, "AVIF", speed=10)] if "AVIF" in images.FORMATS else [])


ORIGINALS = originals()


def outcome(data: bytes, least: int | None = None) -> np.ndarray | None:
    """What was decoded, or None if it was refused as it should be."""
    reason = None
    try:
        with images.decoded(data, "a.jpg", least=least) as picture:
            image = rgb.to_array(picture.image)
    except ImageError as error:
        reason, message = error.reason, str(error)
    if reason is not None:
        assert reason
        assert message == f"a.jpg: {reason}"
        assert len(message.splitlines()) == 1
        return None
    assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
    assert min(image.shape) > 0
    return image


@pytest.fixture(autouse=True)
def fewer_pixels(monkeypatch):
    """Memory grows with the pixels that a header promises: here with at most 50 million."""
    monkeypatch.setattr(images, "MAX_PIXELS", 50_000_000)


def test_originals_are_sound():
    for data in ORIGINALS:
        assert load_rgb(data).shape in {(20, 28, 3), (28, 20, 3)}


@pytest.mark.parametrize("examples", [600, pytest.param(2000, marks=pytest.mark.slow)])
def test_bytes(examples):
    @settings(max_examples=examples, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(mutated(ORIGINALS))
    def check(data):
        with limited():
            image, smaller = outcome(data), outcome(data, least=8)
            assert (smaller is None) == (image is None)
            if image is None:
                return
            assert letterbox(image, 16).shape == (16, 16, 3)
            assert len(describe(image)) == len(describe(PIXELS))

    with no_warnings():
        check()


@pytest.mark.parametrize("examples", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_folders_of_them(examples, tmp_path):
    """Thirty at a time, through threads and the cache: each is a record or refused."""
    number = iter(range(10**6))

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.lists(mutated(ORIGINALS), min_size=30, max_size=30))
    def check(contents):
        root = write_set(tmp_path / f"set{next(number)}", {"axes": 1, "boots": 1})
        for index, data in enumerate(contents):
            (root / "boots" / f"{index:02d}.jpg").write_bytes(data)
        before = state(root)
        with limited():
            found = read_folder(root, size=16)
            again = read_folder(root, size=16)
        assert len(found.records) + len(found.refused) == 32
        assert found == again, "from the cache"
        assert state(root) == before

    with no_warnings():
        check()


SIDE = 7070  # nearly 50 million pixels


def chunk(name: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check


def deep_png() -> bytes:
    """16-bit RGB with alpha, eight bytes a pixel, of nothing but zeros."""
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 6, 0, 0, 0)
    body = zlib.compress(bytes((1 + 8 * SIDE) * SIDE), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


LARGEST = {
    "jpeg": lambda: blank("RGB", "JPEG", progressive=True, exif=EXIF),
    "png": lambda: blank("RGBA", "PNG"),
    "deep png": deep_png,
    "palette": lambda: blank("P", "PNG", transparency=b"\0"),
    "gif": lambda: blank("P", "GIF", transparency=0),
    "webp": lambda: blank("RGBA", "WEBP", lossless=True, method=0),
    "float": lambda: blank("F", "TIFF", compression="tiff_deflate"),
    "avif": lambda: blank("RGB", "AVIF", speed=10),
}


def blank(mode: str, kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (SIDE, SIDE)).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("kind", LARGEST)
def test_the_largest_pictures_that_are_read_stay_below_1_gib(kind):
    """A WebP of 40 bytes can be one. Four at once take the memory of one."""
    if kind == "avif" and "AVIF" not in images.FORMATS:
        pytest.skip("this Pillow has no AVIF")
    data = LARGEST[kind]()
    with limited():
        assert load_rgb(data).shape == (SIDE, SIDE, 3)
    threads = [threading.Thread(target=load_rgb, args=(data,)) for _ in range(2)]
    with limited():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "million"), [("jpeg", 250), ("webp", 100)])
def test_the_largest_of_all_take_17_bytes_a_pixel_at_most(kind, million, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setitem(globals(), "SIDE", int((million * 10**6) ** 0.5))
    data = LARGEST[kind]()
    with limited(mebibytes=17 * million, seconds=50):  # 8 to 14 s on slow machines
        assert load_rgb(data).shape == (SIDE, SIDE, 3)
    if kind == "jpeg":
        with limited(seconds=50):
            assert images.load_letterboxed(data, 128, "a.jpg").shape == (128, 128, 3)
    monkeypatch.setitem(globals(), "SIDE", SIDE + 10)
    with pytest.raises(ImageError, match=f"over the limit of {million} million pixels"):
        load_rgb(LARGEST[kind]())


def gif_with_comment(blocks: int) -> bytes:
    data = converted("P", "GIF")
    at = data.rindex(b"\x2c\0\0\0\0")
    return data[:at] + b"\x21\xfe" + b"\x01a" * blocks + b"\0" + data[at:]


def jpeg_with_exif(segments: int) -> bytes:
    data = encoded(PIXELS, "JPEG")
    exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\0"
    return data[:2] + (b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif) * segments + data[2:]


def directory(entries: int, size: int) -> bytes:
    """An EXIF directory of which every entry says that it is the whole block."""
    rows = [struct.pack("<HHII", 1000 + k, 7, size, 0) for k in range(entries)]
    head = b"II\x2a\0" + struct.pack("<IH", 8, entries)
    return (head + b"".join(rows) + bytes(4)).ljust(size, b"x")


def png_with(*chunks: bytes) -> bytes:
    data = encoded(PIXELS, "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


SLOW = {
    "comment": lambda: gif_with_comment(1_000_000),
    "exif": lambda: jpeg_with_exif(60_000),
    "junk": lambda: b"\xff\xd8\xff\xe0\0\2" + bytes(4_000_000) + b"\xff\xd9",
    "markers": lambda: b"\xff\xd8" + b"\xff\x01" * 1_000_000 + b"\xff\xd9",
    "directory": lambda: png_with(chunk(b"eXIf", directory(60_000, 2**20))),
    "text": lambda: png_with(*[chunk(b"tEXt", b"a\0b")] * 100_000),
    "packed text": lambda: png_with(*[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**25)))] * 20),
    "profile": lambda: png_with(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**28), 1))),
    "tiff": lambda: directory(60_000, 2**20),
}


@pytest.mark.parametrize("kind", SLOW)
def test_what_makes_parsers_slow_or_large(kind):
    """Quadratic time and memory out of a few bytes, each known from some version of Pillow."""
    data = SLOW[kind]()
    with no_warnings(), limited():
        outcome(data)


def test_comments_of_a_gif_are_counted_before_they_are_joined():
    """Also behind junk, behind another extension, and in several comments."""
    assert outcome(gif_with_comment(1000)) is not None
    long = gif_with_comment(1001)
    other = b"\x21\xff\x0bNETSCAPE2.0\3\1\0\0\0"
    at = long.index(b"\x21\xfe")
    for data in (long, long[:at] + b"junk" + long[at:], long[:at] + other + long[at:]):
        with pytest.raises(ImageError, match="a comment that is too long"):
            load_rgb(data)
    two = gif_with_comment(600)
    comment = two[at : two.index(b"\x2c\0\0\0\0", at)]
    with pytest.raises(ImageError, match="a comment that is too long"):
        load_rgb(two[:at] + comment + two[at:])
    assert outcome(two[:at]) is None  # ends within the header
