"""Memory, limits and faults of the machine while images are decoded."""

import errno
import io
import os
import struct
import subprocess
import sys
import textwrap
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_files import encode, reason, scene
from pictures import write_set
from PIL import Image

from jaxgear.data.folder.read import read_folder
from jaxgear.data.images import decode as images
from jaxgear.data.images import encoded, rgb
from jaxgear.data.images.decode import load_letterboxed, load_rgb
from jaxgear.data.images.encoded import ImageError
from jaxgear.data.splits.clean import require_clean
from jaxgear.errors import DataError, GearError

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
