"""`load_rgb` names why it refuses a file."""

import io
import os
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
from image_files import encode, png, reason, scene
from PIL import Image

from jaxgear.data.images import decode as images
from jaxgear.data.images import encoded
from jaxgear.data.images.decode import load_letterboxed, load_rgb
from jaxgear.data.images.encoded import ImageError


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
