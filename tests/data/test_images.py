"""`load_rgb` decodes every kind of file as people see it, or names the reason; `letterbox`."""

import errno
import io
import os
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from pictures import write_set
from PIL import Image

from jaxgear.data.folder.picture_cache import shrink
from jaxgear.data.folder.read import read_folder
from jaxgear.data.images import decode as images
from jaxgear.data.images import encoded, rgb
from jaxgear.data.images.decode import load_letterboxed, load_rgb
from jaxgear.data.images.encoded import ImageError
from jaxgear.data.images.letterboxing import ENOUGH, letterbox
from jaxgear.data.splits.clean import require_clean
from jaxgear.errors import DataError, GearError


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def scene(height: int = 40, width: int = 60) -> np.ndarray:
    """A smooth picture without symmetry: u8 [H, W, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 // width, y * 255 // height, (x + 2 * y) * 255 // (width + 2 * height)]
    return np.stack(channels, axis=2).astype(np.uint8)


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra) -> bytes:
    """A PNG file that Pillow cannot write. `extra`: (name, data) chunks before IDAT."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        load_rgb(data, "a/b.jpg")
    message = str(caught.value)
    assert message.startswith("a/b.jpg: ")
    assert "\n" not in message
    return message.removeprefix("a/b.jpg: ")


# --- accepted files


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 12),
        ("JPEG", {"quality": 95, "subsampling": 0}, 6),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, 6),
        ("AVIF", {"quality": 95}, 12),
    ],
)
def test_formats(kind: str, options: dict, tolerance: int):
    if kind not in images.FORMATS:
        pytest.skip(f"this Pillow has no {kind}")
    got = load_rgb(encode(Image.fromarray(scene()), kind, **options))
    assert got.dtype == np.uint8
    assert got.flags.writeable
    assert np.abs(got.astype(int) - scene()).max() <= tolerance


@pytest.mark.parametrize("name", ["x.png", "x.JPG", "x", "é ü.jpg", "n" * 255])
def test_content_decides_not_the_name(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(encode(Image.fromarray(scene()), "WEBP", lossless=True))
    assert np.array_equal(load_rgb(path), scene())
    assert np.array_equal(load_rgb(str(path)), scene())


def test_grey_and_bilevel():
    grey = scene()[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=2)
    assert np.array_equal(load_rgb(encode(Image.fromarray(grey), "PNG")), expected)
    bits = Image.fromarray(grey > 100)
    assert bits.mode == "1"
    assert np.array_equal(load_rgb(encode(bits, "PNG")), (expected > 100) * np.uint8(255))


def test_palette_and_first_frame_of_an_animation():
    colours = [Image.new("RGB", (5, 4), c) for c in ("red", "lime", "blue")]
    frames = [c.convert("P", palette=Image.Palette.ADAPTIVE) for c in colours]
    options = {"save_all": True, "append_images": frames[1:]}
    for kind in ("GIF", "PNG", "TIFF"):
        got = load_rgb(encode(frames[0], kind, **options))
        assert got.shape == (4, 5, 3)
        assert (got == [255, 0, 0]).all(), kind
    webp = encode(colours[0], "WEBP", save_all=True, append_images=colours[1:], lossless=True)
    assert (load_rgb(webp) == [255, 0, 0]).all()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_hidden_colour_under_alpha_does_not_show(kind: str):
    """Catalogue cut-outs hide black or red under full transparency: `convert("RGB")` shows it."""
    alpha = np.zeros((4, 6), np.uint8)
    alpha[:, 3:] = 255
    alpha[:, 2] = 128
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    seen = []
    for hidden in ([255, 0, 0], [0, 0, 0]):
        rgba = np.full((4, 6, 4), 100, np.uint8)
        rgba[:, :2, :3] = hidden
        rgba[..., 3] = alpha
        seen.append(load_rgb(encode(Image.fromarray(rgba), kind, **options)))
    assert np.array_equal(*seen)
    assert (seen[0][:, :2] == 255).all()
    assert (np.abs(seen[0][:, 2].astype(int) - 177) <= 1).all()  # 100 at half over 255
    assert (seen[0][:, 3:] == 100).all()


def test_grey_with_alpha():
    values = np.array([[0, 0, 100, 100]], np.uint8)
    alpha = np.array([[0, 255, 0, 255]], np.uint8)
    la = Image.merge("LA", [Image.fromarray(values), Image.fromarray(alpha)])
    assert load_rgb(encode(la, "PNG"))[0, :, 0].tolist() == [255, 0, 255, 100]


def test_palette_with_transparency():
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).copy()
    image = Image.frombytes("P", (3, 1), image.tobytes())
    image.putpalette([10, 20, 30, 40, 50, 60, 0, 0, 0])
    one = encode(image, "PNG", transparency=2)
    assert load_rgb(one)[0].tolist() == [[10, 20, 30], [40, 50, 60], [255, 255, 255]]
    each = encode(image, "PNG", transparency=bytes([0, 255, 0]))
    assert load_rgb(each)[0].tolist() == [[255, 255, 255], [40, 50, 60], [255, 255, 255]]
    gif = encode(image, "GIF", transparency=0)
    assert load_rgb(gif)[0].tolist() == [[255, 255, 255], [40, 50, 60], [0, 0, 0]]


def test_key_colour_transparency_of_rgb_and_grey():
    rgb = Image.fromarray(np.array([[[1, 2, 3], [1, 2, 4]]], np.uint8))
    assert load_rgb(encode(rgb, "PNG", transparency=(1, 2, 3)))[0].tolist() == [
        [255] * 3,
        [1, 2, 4],
    ]
    grey = Image.fromarray(np.array([[7, 8]], np.uint8))
    assert load_rgb(encode(grey, "PNG", transparency=7))[0, :, 0].tolist() == [255, 8]


def test_16_bit_grey_is_scaled_and_its_key_colour_transparent():
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    data = encode(Image.fromarray(values), "PNG")
    assert Image.open(io.BytesIO(data)).mode == "I;16"
    assert load_rgb(data)[0, :, 0].tolist() == [0, 1, 128, 255]
    tiff = encode(Image.fromarray(values), "TIFF")
    assert load_rgb(tiff)[0, :, 0].tolist() == [0, 1, 128, 255]
    rows = b"\x00" + values.astype(">u2").tobytes()
    keyed = png(4, 1, 16, 0, rows, (b"tRNS", struct.pack(">H", 257)))
    assert load_rgb(keyed)[0, :, 0].tolist() == [0, 255, 128, 255]


def test_big_endian_16_bit_tiff():
    values = np.array([[0, 257, 128 * 257, 65535]], ">u2")
    tags = {
        256: (4, 4), 257: (4, 1), 258: (3, 16), 259: (3, 1), 262: (3, 1),
        273: (4, 8), 277: (3, 1), 278: (4, 1), 279: (4, 8),
    }  # fmt: skip
    fields = b""
    for tag, (kind, value) in tags.items():
        packed = struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value)
        fields += struct.pack(">HHI", tag, kind, 1) + packed
    directory = struct.pack(">H", len(tags)) + fields + struct.pack(">I", 0)
    data = b"MM\x00\x2a" + struct.pack(">I", 16) + values.tobytes() + directory
    assert Image.open(io.BytesIO(data)).mode == "I;16B"
    assert load_rgb(data)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("with_key", [False, True])
def test_48_bit_png(with_key: bool):
    values = np.array([[[0, 257 * 9, 65535], [0x1234, 0x5678, 0x9ABC]]], ">u2")
    extra = [(b"tRNS", struct.pack(">HHH", 0x1234, 0x5678, 0x9ABC))] if with_key else []
    data = png(2, 1, 16, 2, b"\x00" + values.tobytes(), *extra)
    last = [255, 255, 255] if with_key else [0x12, 0x56, 0x9A]
    assert load_rgb(data)[0].tolist() == [[0, 9, 255], last]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0.0, 0.5, 1.0], np.float32, [0, 128, 255]),
        ([0.0, 128.0, 255.0], np.float32, [0, 128, 255]),
        ([0.0, 32896.0, 65535.0], np.float32, [0, 128, 255]),
        ([-1.0, 0.0, 1.0], np.float32, [0, 128, 255]),
        ([0, 128, 255], np.int32, [0, 128, 255]),
        ([0, 32896, 65535], np.int32, [0, 128, 255]),
        ([-(2**31), 0, 2**31 - 1], np.int32, [0, 128, 255]),
        ([0, 0, 0], np.int32, [0, 0, 0]),
    ],
)
def test_32_bit_and_float(values: list, dtype: type, expected: list):
    image = Image.fromarray(np.array([values], dtype))
    assert image.mode in ("I", "F")
    assert load_rgb(encode(image, "TIFF"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize(
    ("kind", "dtype"), [("PNG", np.uint16), ("TIFF", np.uint16), ("TIFF", np.int32), ("TIFF", "f")]
)
def test_grey_that_fills_the_lower_bits_alone_is_not_black(kind: str, dtype: object, bits: int):
    """Scanners and cameras with fewer than 16 bits write such files."""
    white = 2**bits - 1
    values = np.array([[0, white // 2, white]], dtype)
    got = load_rgb(encode(Image.fromarray(values), kind))[0, :, 0].tolist()
    assert got == [0, pytest.approx(127, abs=1), 255]


def test_a_key_colour_does_not_count_for_what_is_white():
    values = np.array([[0, 2000, 4095, 65535]], ">u2")
    keyed = png(4, 1, 16, 0, b"\0" + values.tobytes(), (b"tRNS", struct.pack(">H", 65535)))
    assert load_rgb(keyed)[0, :, 0].tolist() == [0, 125, 255, 255]


@pytest.mark.parametrize("colour", [2, 4, 6])
def test_colour_that_fills_the_lower_bits_alone_is_refused(colour: int):
    """Pillow keeps the upper 8 bits, so the image would be black."""
    channels = {2: 3, 4: 2, 6: 4}[colour]
    values = np.full((1, 2, channels), 4095, ">u2")
    if colour > 2:
        values[..., -1] = 65535  # opaque
    assert "upper bits are not used" in reason(png(2, 1, 16, colour, b"\0" + values.tobytes()))
    for white in (65535, 0)[: 1 + (colour > 2)]:  # or where all is transparent
        values[:] = white
        assert (load_rgb(png(2, 1, 16, colour, b"\0" + values.tobytes())) == 255).all()


def colour_tiff(values: np.ndarray, planes: int) -> bytes:
    """An uncompressed RGB TIFF of 8 or 16 bits a channel, interleaved (1) or by planes (2)."""
    height, width, _ = values.shape
    bits = 8 * values.dtype.itemsize
    pixels = values if planes == 1 else values.transpose(2, 0, 1)
    size = values.nbytes
    per_strip = size if planes == 1 else size // 3
    strips = 1 if planes == 1 else 3
    directory = 8 + size
    extra = directory + 2 + 12 * 10 + 4
    arrays = struct.pack("<3H", bits, bits, bits) + bytes(2)
    arrays += struct.pack(f"<{strips}I", *(8 + k * per_strip for k in range(strips)))
    arrays += struct.pack(f"<{strips}I", *[per_strip] * strips)
    where = lambda first: first if strips > 1 else None  # noqa: E731
    offsets, counts = where(extra + 8), where(extra + 8 + 4 * strips)
    rows = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, extra), (259, 3, 1, 1),
        (262, 3, 1, 2), (273, 4, strips, offsets or 8), (277, 3, 1, 3), (278, 4, 1, height),
        (279, 4, strips, counts or size), (284, 3, 1, planes),
    ]  # fmt: skip
    fields = b"".join(struct.pack("<HHII", *row) for row in rows)
    head = b"II*\0" + struct.pack("<I", directory) + pixels.tobytes()
    return head + struct.pack("<H", len(rows)) + fields + bytes(4) + arrays


def test_planes_of_a_tiff():
    small = scene(6, 4)
    for planes in (1, 2):
        assert np.array_equal(load_rgb(colour_tiff(small, planes)), small)
    deep = small.astype("<u2") * 257
    assert np.array_equal(load_rgb(colour_tiff(deep, 1)), small)
    assert "in separate planes; save it with 8 bits" in reason(colour_tiff(deep, 2))
    assert "upper bits are not used" in reason(colour_tiff(small.astype("<u2"), 1))


def test_the_largest_picture_of_a_tiff_is_taken():
    large, small = Image.fromarray(scene(80, 120)), Image.fromarray(scene(20, 30))
    first = encode(small, "TIFF", save_all=True, append_images=[large, small])
    assert np.array_equal(load_rgb(first), scene(80, 120))
    same = encode(large, "TIFF", save_all=True, append_images=[Image.new("RGB", large.size)])
    assert np.array_equal(load_rgb(same), scene(80, 120)), "of equals the first"


def test_a_tiff_of_a_thumbnail_alone_is_refused():
    """Camera raw files (DNG, NEF) hold the full image elsewhere."""
    marked = encode(Image.fromarray(scene()), "TIFF", tiffinfo={254: 1})
    assert "only a thumbnail" in reason(marked)


def test_float_with_nan_is_refused():
    image = Image.fromarray(np.array([[0.0, np.nan]], np.float32))
    assert "not finite" in reason(encode(image, "TIFF"))


def test_cmyk_plain_and_inverted_by_adobe():
    """Pillow writes CMYK JPEG inverted with the Adobe marker, as Photoshop does."""
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red
    for data in (encode(cmyk, "JPEG", quality=95), encode(cmyk, "TIFF")):
        assert Image.open(io.BytesIO(data)).mode == "CMYK"
        got = load_rgb(data)
        assert (np.abs(got.astype(int) - [255, 0, 0]) <= 3).all()


def test_lab_tiff():
    for values, expected in (((136, 208, 195), [255, 0, 0]), ((255, 128, 128), [255, 255, 255])):
        lab = Image.merge("LAB", [Image.new("L", (2, 2), value) for value in values])
        got = load_rgb(encode(lab, "TIFF"))
        assert np.abs(got.astype(int) - expected).max() <= 14


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_eight_orientations_look_the_same(kind: str):
    upright = scene(32, 48)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, -1),
    }
    options = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}
    for orientation, pixels in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.fromarray(np.ascontiguousarray(pixels))
        got = load_rgb(encode(image, kind, exif=exif, **options.get(kind, {})))
        assert got.shape == upright.shape, orientation
        assert np.abs(got.astype(int) - upright).max() <= 6, orientation


def test_damaged_exif_is_no_reason_to_refuse():
    data = encode(Image.fromarray(scene()), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")
    assert load_rgb(data).shape == (40, 60, 3)
    exif = Image.Exif()
    exif[0x0112] = 77
    assert load_rgb(encode(Image.fromarray(scene()), "JPEG", exif=exif)).shape == (40, 60, 3)


def test_large_pictures_are_as_a_full_filter_makes_them():
    """Averaging first, for speed, changes no pixel much."""
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    large = coarse.resize((640, 640), Image.Resampling.BICUBIC)
    full = np.asarray(large.resize((128, 128), Image.Resampling.BICUBIC), np.float64)
    away = letterbox(np.asarray(large), 128) - full
    assert np.sqrt((away**2).mean()) < 2


def test_averaging_squares_shifts_nothing():
    """641 pixels leave one for the last square of four; as a whole square it would be off by 12."""
    y, x = np.mgrid[0:399, 0:641]
    waves = (127 + 120 * np.sin(x / 9) * np.cos(y / 11)).astype(np.uint8)
    waves = np.repeat(waves[..., None], 3, axis=2)
    full = Image.fromarray(waves).resize((128, 80), Image.Resampling.BICUBIC)
    away = letterbox(waves, 128)[24:104] - np.asarray(full, np.float64)
    assert np.sqrt((away**2).mean()) < 2


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_extreme_shapes(size: tuple[int, int], kind: str):
    image = load_rgb(encode(Image.new("RGB", size, "red"), kind))
    assert image.shape == (size[1], size[0], 3)
    square = letterbox(image, 64)
    assert square.shape == (64, 64, 3)
    assert (square[..., 1] < 50).any(), "the picture vanished"


# --- refused files


def test_truncated_jpeg():
    image = Image.fromarray(scene(200, 300))
    for options in ({}, {"progressive": True}):
        data = encode(image, "JPEG", quality=90, **options)
        for cut in (data[: len(data) // 2], data[:-2], data[:-1], data[:-40], data[:300]):
            assert "truncated" in reason(cut)
        # a download that was cut and padded: libjpeg takes the zeros for picture data
        assert "truncated" in reason(data[: len(data) // 2] + bytes(5000))
        assert "truncated" in reason(data[:-2] + bytes(64))


def test_end_marker_of_an_embedded_thumbnail_does_not_count():
    thumbnail = encode(Image.new("RGB", (8, 8)), "JPEG")
    segment = b"\xff\xe2" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    data = encode(Image.fromarray(scene(64, 64)), "JPEG")
    whole = data[:2] + segment + data[2:]
    assert load_rgb(whole).shape == (64, 64, 3)
    assert reason(whole[:-2]) == "truncated JPEG (no end-of-image marker)"


def test_bytes_after_the_end_of_a_jpeg_do_not_matter():
    data = encode(Image.fromarray(scene()), "JPEG")
    expected = load_rgb(data)
    for tail in (b"\x00", b"\n", b"preview" * 1000, data, data[: len(data) // 2]):
        assert np.array_equal(load_rgb(data + tail), expected)


CODINGS = {
    "plain": {},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 2},
}
DAMAGE = {  # of compressed data
    "ends early": lambda body: body[: len(body) // 2],
    "lacks the last bytes": lambda body: body[:-60],
    "has 600 zeros inside": lambda body: body[:5000] + bytes(600) + body[5600:],
    "lacks 600 bytes inside": lambda body: body[:5000] + body[5600:],
    "was copied as text, to longer lines": lambda body: body.replace(b"\n", b"\r\n"),
    "was copied as text, to shorter lines": lambda body: body.replace(b"\r", b""),
}


def noise(height: int = 300, width: int = 400) -> Image.Image:
    blocks = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("least", [None, 64])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("coding", CODINGS)
def test_a_jpeg_whose_data_are_not_all_there_though_it_ends(coding, damage, least):
    """libjpeg shows grey or wrong rows, and Pillow reports nothing."""
    data = encode(noise(), "JPEG", quality=90, **CODINGS[coding])
    start = data.index(b"\xff\xda") + 30
    broken = data[:start] + DAMAGE[damage](data[start:-2]) + data[-2:]
    Image.open(io.BytesIO(broken)).load()  # Pillow accepts it
    if (coding, damage) == ("progressive", "has 600 zeros inside"):
        return  # a run of zeros is valid data in each of its scans
    whole = pytest.raises(ImageError, match=r"(truncated|damaged) JPEG")
    with whole, images.decoded(broken, "x", least=least):
        pass


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_whole_jpegs_of_every_size_and_coding_are_taken(coding: str, mode: str):
    for size in ((1, 1), (8, 8), (16, 17), (33, 250), (2000, 2000)):
        for image in (noise(*size), Image.new("RGB", size[::-1], "white")):
            data = encode(image.convert(mode), "JPEG", **CODINGS[coding])
            end = data.rindex(b"\xff\xd9")
            for padding in (b"", b"\xff" * 3):
                assert load_rgb(data[:end] + padding + data[end:]).shape == (*size, 3)
            assert load_letterboxed(data, 16, "x").shape == (16, 16, 3)


def test_zeros_before_the_end_of_a_jpeg_are_padding():
    data = encode(noise(), "JPEG")
    assert np.array_equal(load_rgb(data[:-2] + bytes(512) + data[-2:]), load_rgb(data))
    assert "left over" in reason(data[:-2] + b"other data" * 3 + data[-2:])


def test_a_picture_with_a_preview_behind_it_is_the_first(tmp_path: Path):
    """Phones write such files (MPO); the second image may be damaged."""
    first, second = noise(), Image.new("RGB", (90, 60), "red")
    data = encode(first, "MPO", save_all=True, append_images=[second])
    assert load_rgb(data).shape == (300, 400, 3)
    assert load_rgb(data[:-100] + bytes(98) + b"\xff\xd9").shape == (300, 400, 3)


@pytest.mark.parametrize("lossless", [True, False])
def test_a_webp_that_was_copied_as_text(lossless: bool):
    data = encode(noise(), "WEBP", lossless=lossless)
    assert load_rgb(data).shape == (300, 400, 3)
    assert load_rgb(data + b"behind\n").shape == (300, 400, 3)
    assert "copied as text" in reason(data.replace(b"\n", b"\r\n"))


def test_a_gif_whose_data_end_early_though_it_ends():
    data = encode(noise().quantize(), "GIF")
    assert "truncated" in reason(data[: len(data) // 2] + b"\0;")
    assert "broken data" in reason(data[:3000] + bytes(255) + data[3255:])


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_other_formats_cut_short(kind: str):
    if kind not in images.FORMATS:
        pytest.skip(f"this Pillow has no {kind}")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), kind)
    load_rgb(data)
    for cut in (len(data) // 2, len(data) - 4, 20):
        reason(data[:cut])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>no such picture</html>", "web page"),
        (b"\xef\xbb\xbf\n  <HTML>", "web page"),
        (b"hello, I am no picture\n", "text, not a picture"),
        ("Grüße".encode(), "text, not a picture"),
        (bytes(range(256)) * 10, "not a readable picture"),
        (b"\xff\xd8\xff", "truncated JPEG"),
        (b"\x89PNG\r\n\x1a\n", "truncated PNG"),
        (b"RIFF\x00\x00", "damaged WebP"),
        (b"\xff\xd8\xff\xd9", "damaged JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript; export it"),
        (b"P6 1 1 255\n\x00\x00\x00", "not a readable picture"),
    ],
)
def test_not_pictures(data: bytes, expected: str):
    assert expected in reason(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\0\0\0\x18ftypcrx \0\0\0\1" + bytes(99), "camera raw (Canon); export it"),
        (b"\0\0\0\x14ftypqt  " + bytes(99), "a video"),
        (b"RIFF\x24\0\0\0AVI LIST", "a video"),
        (b"\xff\x0a" + bytes(range(99)), "JPEG XL; convert it"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000; convert it"),
        (b"Rar!\x1a\7\1\0" + bytes(99), "RAR archive; unpack it"),
        (b"name".ljust(257, b"\0") + b"ustar\x0000" + bytes(99), "tar archive; unpack it"),
        (b"/annex/objects/MD5E-s1--0.jpg\n", "run `git annex get`"),
        (b"outs:\n- md5: 0\n  path: a.jpg\n", "run `dvc pull`"),
        (b'{"message": "Not Found", "status": "404"}', "error message of a server"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey not found</Code></Error>", "of a server"),
        (b"data:image/jpeg;base64,/9j/4AAQ", "a data URL"),
        (b"/9j/4AAQSkZJRgABAQAAAQABAAD/2wBD\n", "base64 text"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"></svg>', "SVG"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n\x89PNG", "server's answer"),
        (b"\x89PNG\n\x1a\n\0\0\0\rIHDR", "a PNG that was copied as text"),
        ("\ufffd\ufffd\ufffd\ufffd\0JFIF".encode(), "copied as text"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "AppleDouble"),
        (bytes(5000), "nothing but zeros"),
        (b"--boundary\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8", "a multipart upload"),
        (b"GIF89a" + bytes(3), "damaged GIF"),
    ],
)
def test_what_a_file_is_that_is_no_picture_is_named(data: bytes, expected: str):
    assert expected in reason(data)


@pytest.mark.parametrize("chunk", [b"IHDR", b"tEXt", b"IEND"])
def test_a_png_with_a_wrong_check_sum_is_a_damaged_png(chunk: bytes):
    data = bytearray(png(1, 1, 8, 2, bytes(4), (b"tEXt", b"Comment\0text")))
    data[data.index(chunk) + 4] ^= 255
    if chunk == b"IEND":
        assert "no IEND chunk" in reason(bytes(data))
    else:
        assert "damaged PNG" in reason(bytes(data))


def test_heic_is_read_where_the_plugin_is_and_else_named():
    if "HEIF" not in images.FORMATS:
        head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
        assert "HEIC (iPhone); pip install 'jaxgear[heic]'" in reason(head + bytes(99))
        return
    data = encode(Image.fromarray(scene(64, 96)), "HEIF", quality=95)
    got = load_rgb(data)
    assert got.shape == (64, 96, 3)
    assert np.abs(got.astype(int) - scene(64, 96)).mean() < 4
    assert "damaged" in reason(data[: len(data) // 2])


def test_without_the_plugin_heic_is_named():
    head = b"\0\0\0\x18ftypheix\0\0\0\0mif1heic" + bytes(99)
    named = encoded.what_it_is(head, ["JPEG", "PNG"])
    assert named.startswith("HEIC (iPhone); pip install 'jaxgear[heic]'")
    named = encoded.what_it_is(head.replace(b"heix", b"avif"), ["JPEG", "PNG"])
    assert named.startswith("AVIF, which this Pillow cannot read")


def test_paths_that_are_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def message(path: Path) -> str:
        with pytest.raises(ImageError) as caught:
            load_rgb(path)
        assert str(caught.value).startswith(f"{path}: ")
        return caught.value.reason

    assert message(tmp_path) == "a folder, not a picture"
    assert message(tmp_path / "no.jpg") == "no such file"
    assert message(tmp_path / "no.jpg" / "below.jpg") == "no such file"
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nowhere")
    assert message(tmp_path / "broken.jpg") == "broken symbolic link"
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert "symbolic links" in message(tmp_path / "loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert message(tmp_path / "pipe.jpg") == "not a regular file"  # and did not wait for a writer
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # socket paths are limited to some 100 bytes
        server.bind("s.jpg")
        assert message(tmp_path / "s.jpg").startswith("cannot be read")
    assert message(Path("/dev/zero")) == "not a regular file"


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x.jpg"
    path.write_bytes(encode(Image.fromarray(scene()), "JPEG"))
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything

        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(images.os, "open", refuse)
    with pytest.raises(ImageError, match=r"x\.jpg: cannot be read: Permission denied"):
        load_rgb(path)


SHORT = """
import io, resource, sys
import numpy as np
from PIL import Image
from jaxgear.data.images import load_rgb
kind, options = sys.argv[1], {"progressive": True, "method": 0}
file = io.BytesIO()
noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
Image.fromarray(noise).resize((4000, 3000)).save(file, kind, **options)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000,) * 2)
try: load_rgb(file.getvalue(), "sound.jpg")
except MemoryError as error: print(error)
"""


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_too_little_memory_is_no_fault_of_the_picture(kind: str):
    """Under a batch system's memory limit, where some decoders report a damaged image."""
    done = subprocess.run(
        [sys.executable, "-c", SHORT, kind],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.stdout == "sound.jpg: too little memory to decode it\n", done.stderr


def test_a_library_that_is_missing_is_no_fault_of_the_picture(monkeypatch: pytest.MonkeyPatch):
    def missing(image):
        raise ImportError("no module _imagingcms")

    monkeypatch.setattr(rgb, "_lab_to_rgb", missing)
    data = encode(Image.new("LAB", (4, 4)), "TIFF")
    with pytest.raises(GearError, match=r"^a: Pillow needs .*_imagingcms") as caught:
        load_rgb(data, "a")
    assert not isinstance(caught.value, ImageError)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_machine_that_opens_no_file_blames_none(number: int, tmp_path, monkeypatch):
    """Nor is an image skipped for it when bad images are skipped."""
    write_set(tmp_path, {"axes": 2, "boots": 2})

    def full(path, flags):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(encoded.os, "open", full)
    with pytest.raises(GearError, match="no file can be opened now") as caught:
        require_clean(read_folder(tmp_path), "skip")
    assert not isinstance(caught.value, DataError)


def test_memory_that_ends_while_exif_is_read_is_not_taken_for_upright(monkeypatch):
    def short(image):
        raise MemoryError

    data = encode(Image.new("RGB", (4, 4)), "JPEG")
    monkeypatch.setattr(Image.Image, "getexif", short)
    with pytest.raises(MemoryError):
        load_rgb(data)


def test_image_error_is_a_data_error_with_a_name():
    assert issubclass(ImageError, DataError)
    with pytest.raises(ImageError, match=r"^picture: empty file$"):
        load_rgb(b"")


@pytest.mark.parametrize("size", [(8192, 6144), (16382, 3628), (16320, 12240)])
def test_pictures_and_panoramas_of_phones_are_read_in_little_memory(size: tuple[int, int]):
    """50 to 200 million pixels; JPEGs are decoded at 1/8 size."""
    data = encode(Image.new("L", size, 200), "JPEG")
    with images.decoded(data, "x", least=128) as picture:
        assert (picture.width, picture.height) == size
        assert max(picture.image.size) <= size[0] / 7
    square = load_letterboxed(data, 32, "x")
    assert (square[16] == 200).all()


def test_file_over_the_limit_of_bytes(tmp_path: Path):
    path = tmp_path / "huge.bmp"
    with path.open("wb") as file:
        file.truncate(encoded.MAX_BYTES + 1)  # sparse
    with pytest.raises(ImageError, match="513 MB is over the limit of 512 MB"):
        load_rgb(path)


def test_bombs_are_refused_by_name_at_once_and_in_little_memory(tmp_path: Path):
    for side in (16_000, 23_000):
        row = zlib.compress(b"\x00" * (side // 8 + 1) * side, 9)
        head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n"
        for name, body in ((b"IHDR", head), (b"IDAT", row), (b"IEND", b"")):
            check = struct.pack(">I", zlib.crc32(name + body))
            data += struct.pack(">I", len(body)) + name + body + check
        assert len(data) < 250_000
        (tmp_path / f"{side}.png").write_bytes(data)
    code = """
        import resource, sys, time
        from jaxgear.data.images import ImageError
        from jaxgear.data.images import load_rgb
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for path in sys.argv[1:]:
            start = time.process_time()
            try:
                load_rgb(path)
            except ImageError as error:
                assert str(error).startswith(path) and "million pixels" in str(error), error
            else:
                raise SystemExit("accepted")
            assert time.process_time() - start < 0.1
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert after - before < 20_000, (before, after)  # KB
    """
    files = [str(tmp_path / f"{side}.png") for side in (16_000, 23_000)]
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *files],
        check=True,
        cwd=Path(images.__file__).parents[2],
    )


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "TIFF", "WEBP"])
def test_the_pixel_limit_holds_for_every_format(kind: str, monkeypatch: pytest.MonkeyPatch):
    data = encode(Image.fromarray(scene(40, 60)), kind)
    monkeypatch.setattr(images, "MAX_PIXELS", 40 * 60)
    load_rgb(data)
    monkeypatch.setattr(images, "MAX_PIXELS", 40 * 60 - 1)
    assert "60 x 40 pixels is over the limit" in reason(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_damaged_bytes_never_raise_anything_else(kind: str):
    data = encode(Image.fromarray(scene()), kind)
    rng = np.random.default_rng(1)
    for _ in range(150):
        broken = np.frombuffer(data, np.uint8).copy()
        where = rng.integers(0, min(len(broken), 600), 4)
        broken[where] = rng.integers(0, 256, 4)
        try:
            image = load_rgb(broken.tobytes())
        except ImageError:
            continue
        assert image.dtype == np.uint8
        assert image.shape[2] == 3


def test_pillow_warnings_do_not_leak_from_threads():
    """Damaged EXIF makes Pillow warn; the filters are the process's, so threads must not race."""
    entry = struct.pack(
        "<HHII", 0x010F, 2, 1000, 9999
    )  # a maker's name beyond the end of the block
    exif = b"Exif\0\0II\x2a\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    odd = encode(Image.fromarray(scene()), "JPEG", exif=exif)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        before = list(warnings.filters)

        def work():
            for _ in range(30):
                load_rgb(odd)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert warnings.filters == before
        assert seen == []
        Image.open(io.BytesIO(odd)).getexif()
        assert seen != [], "the file is meant to make Pillow warn"


# --- letterbox


def test_letterbox_keeps_the_whole_picture_centred_on_white():
    red = np.full((50, 100, 3), [200, 0, 0], np.uint8)
    square = letterbox(red, 64)
    assert square.dtype == np.uint8
    assert (square[16:48] == [200, 0, 0]).all()
    assert (square[:16] == 255).all()
    assert (square[48:] == 255).all()
    assert np.array_equal(letterbox(red.transpose(1, 0, 2).copy(), 64), square.transpose(1, 0, 2))


def test_letterbox_leaves_a_picture_that_fits_alone():
    image = scene(64, 64)
    assert np.array_equal(letterbox(image, 64), image)


def test_letterbox_enlarges_small_pictures():
    small = letterbox(scene(10, 16), 64)
    large = letterbox(scene(200, 320), 64)
    content = slice(12, 52)
    assert np.abs(small[content].astype(int) - large[content]).mean() < 12
    assert (small[:12] == 255).all()


def test_letterbox_is_antialiased():
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255  # must become even grey, not black or white columns
    assert np.abs(letterbox(stripes, 64)[:, 2:-2].astype(int) - 127).max() <= 3


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (1, 1), (3, 200), (200, 3)])
def test_letterbox_of_thin_pictures_keeps_a_pixel(shape: tuple[int, int]):
    square = letterbox(np.zeros((*shape, 3), np.uint8), 32)
    assert (square == 0).all(axis=2).any()


@pytest.mark.parametrize("size", [16, 60, 100, 300])
@pytest.mark.parametrize("shape", [(40, 60), (700, 90), (3, 250)])
def test_load_letterboxed_is_letterbox_of_load_rgb(shape: tuple[int, int], size: int):
    alpha = np.full((*shape, 1), 90, np.uint8)
    files = [
        encode(Image.fromarray(np.concatenate([scene(*shape), alpha], axis=2)), "PNG"),
        encode(Image.fromarray(scene(*shape)[..., 0]), "PNG"),
        encode(Image.fromarray(scene(*shape)), "TIFF", tiffinfo={0x0112: 6}),
    ]
    if max(shape) < 2 * ENOUGH:  # a JPEG that is not decoded smaller
        files.append(encode(Image.fromarray(scene(*shape)), "JPEG", exif=turned(6)))
    for data in files:
        expected = letterbox(load_rgb(data), size)
        np.testing.assert_array_equal(load_letterboxed(data, size, "x"), expected)
    with pytest.raises(ImageError, match="x: empty file"):
        load_letterboxed(b"", size, "x")


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    ("longer", "least", "expected"),
    [(256, 128, 128), (255, 128, 128), (254, 128, 254), (257, 129, 129), (500, 128, 250),
     (1025, 128, 129), (3000, 128, 375), (3000, 376, 750), (300, 1, 38), (300, None, 300)],
)  # fmt: skip
def test_jpegs_are_decoded_as_small_as_will_do(
    longer: int, least: int | None, expected: int, progressive: bool
):
    """At the requested size, close in grey levels to the average of the pixels they replace."""
    full = scene(longer // 2, longer)
    for orientation in (1, 6):
        options = {"quality": 95, "progressive": progressive, "exif": turned(orientation)}
        data = encode(Image.fromarray(full), "JPEG", **options)
        with images.decoded(data, "x", least=least) as picture:
            small = np.asarray(picture.image)
        upright = np.rot90(full, -1) if orientation == 6 else full
        assert (picture.height, picture.width) == upright.shape[:2]
        assert max(small.shape) == expected
        assert picture.whole == (expected == longer)
        averaged = Image.fromarray(upright).resize(small.shape[1::-1], Image.Resampling.BOX)
        assert np.abs(small.astype(int) - np.asarray(averaged)).mean() < 3


def test_what_is_no_jpeg_is_decoded_in_full():
    for kind in ("PNG", "TIFF", "GIF", "BMP", "WEBP"):
        data = encode(Image.fromarray(scene(300, 400)), kind)
        with images.decoded(data, "x", least=50) as picture:
            assert picture.whole
            assert picture.image.size == (400, 300)


@pytest.mark.parametrize("size", [32, 128, 129, 200, 224, 400])
@pytest.mark.parametrize("longer", [120, 255, 257, 300, 437, 640, 1100])
def test_what_is_kept_of_a_picture_does_not_depend_on_how_it_came(longer: int, size: int):
    """Its pixels equal those at prediction, and its descriptor is the same at every size."""
    data = encode(Image.fromarray(scene(longer // 2, longer)), "JPEG")
    kept = shrink(data, "x", size)
    np.testing.assert_array_equal(kept.pixels, load_letterboxed(data, size, "x"))
    assert (kept.height, kept.width) == (longer // 2, longer)
    assert kept.descriptor == shrink(data, "x", 16).descriptor


def test_reduced_pixels_are_close_to_those_of_the_whole_picture(shared: Path):
    """On photographs; 1.9 grey levels on average (results/README.md, "Preparing sets")."""
    away = []
    for path in sorted((shared / "data/gear").glob("*/*.jpg"))[::40]:
        data = path.read_bytes()
        whole = letterbox(load_rgb(data), 128).astype(float)
        away.append(np.sqrt(np.mean((load_letterboxed(data, 128, path.name) - whole) ** 2)))
    assert max(away) > 0, "none was decoded smaller"
    assert np.mean(away) < 3


def test_the_end_of_a_jpeg_is_read_where_less_is_decoded():
    data = encode(Image.fromarray(scene(600, 800)), "JPEG", quality=95)
    with pytest.raises(ImageError, match="truncated"):
        load_letterboxed(data[: len(data) // 2], 32, "x")


def test_real_pictures(shared: Path):
    for path in sorted((shared / "data" / "broken").iterdir()):
        with pytest.raises(ImageError, match="web page"):
            load_rgb(path)
    gloves = sorted((shared / "data" / "gear" / "gloves").glob("*.png"))[:10]
    start = time.perf_counter()
    corners = [load_rgb(path)[0, 0].tolist() for path in gloves]
    assert time.perf_counter() - start < 5
    assert corners == [[255, 255, 255]] * len(gloves)  # transparent there, near-black beneath
