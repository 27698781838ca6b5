"""`load_rgb` decodes every kind of file as people see it."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from image_files import encode, png, reason, scene
from PIL import Image

from jaxgear.data.images import decode as images
from jaxgear.data.images.decode import load_rgb
from jaxgear.data.images.letterboxing import letterbox


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
