"""An image file before it is decoded: reads its bytes once, and names the reason to refuse it."""

import codecs
import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path

from jaxgear.data.images import jpeg
from jaxgear.data.images.png import END
from jaxgear.errors import DataError, GearError
from jaxgear.files import read_regular

MAX_BYTES = 512 * 2**20
# Pillow joins these in quadratic time. Cameras write one or two EXIF segments of a JPEG, and a
# comment of a GIF has a block for each 255 letters (Pillow 13 joins blocks in linear time).
MAX_EXIF, MAX_COMMENT = 64, 1000

# Errors of the machine, not of the file: too many open files, or too little memory.
_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class ImageError(DataError):
    """A file that is not a whole, readable image. The message is `<name>: <reason>`."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: {reason}")
        self.reason = reason


def read_bytes(path: str | os.PathLike[str], name: str) -> bytes:
    """Reads a regular file whole; `ImageError` for anything else. Never blocks on a pipe."""
    try:
        return read_regular(path, MAX_BYTES)
    except IsADirectoryError:
        raise ImageError(name, "a folder, not a picture") from None
    except FileNotFoundError:
        broken = Path(path).is_symlink()
        raise ImageError(name, "broken symbolic link" if broken else "no such file") from None
    except OSError as error:
        if error.errno in _OF_THE_MACHINE:
            raise GearError(f"{name}: no file can be opened now ({error.strerror})") from error
        if error.errno in (errno.EINVAL, errno.EFBIG):  # raised by `read_regular`
            raise ImageError(name, error.strerror) from None
        raise ImageError(name, f"cannot be read: {error.strerror}") from None


def check_whole(data: bytes, name: str) -> jpeg.Scans | None:
    """Checks for damage that Pillow hides or ignores.

    Returns:
        The position of the compressed data, for a JPEG.

    Raises:
        ImageError: the file is empty, truncated, or was copied as text.
    """
    if not data:
        raise ImageError(name, "empty file")
    if data.startswith(jpeg.START):
        layout = jpeg.scans(data)
        if layout is None:
            raise ImageError(name, "truncated JPEG (no end-of-image marker)")
        if data.count(b"Exif\0\0") > MAX_EXIF:
            raise ImageError(name, "damaged picture (too many EXIF segments)")
        return layout
    if data.startswith(b"\x89PNG\r\n") and END not in data:
        raise ImageError(name, "truncated PNG (no IEND chunk)")
    if data.startswith(b"GIF8") and _comment_blocks(data) > MAX_COMMENT:
        raise ImageError(name, "damaged picture (a comment that is too long)")
    # WebP has no checksums. A file longer than its header says has extra bytes, such as CRs.
    longer = data.startswith(b"RIFF") and len(data) > 8 + int.from_bytes(data[4:8], "little")
    if longer and 0 < data.count(b"\n") == data.count(b"\r\n"):
        raise ImageError(name, "damaged WebP (it was copied as text)")
    return None


def _comment_blocks(data: bytes) -> int:
    """Blocks in the comments of a GIF before its first image; stops beyond `MAX_COMMENT`."""
    blocks, at = 0, 13
    if data[10:11] and data[10] & 128:  # a palette follows the header
        at += 3 * 2 ** (1 + data[10] % 8)
    while (found := re.compile(b"[!,;]").search(data, at)) and found[0] == b"!":
        at = found.end() + 1
        comment = data[at - 1 : at] == b"\xfe"
        while data[at : at + 1] > b"\0" and blocks <= MAX_COMMENT:
            at += 1 + data[at]
            blocks += comment
        if blocks > MAX_COMMENT:
            break
        at += 1
    return blocks


_EXPORT = "export it as JPEG or PNG"
_CONVERT = "convert it to JPEG or PNG"
_AGAIN = "copy or download it again"
_UNPACK = "unpack it"

# First bytes of a file -> description and advice.
_STARTS: dict[bytes, str] = {
    b"\xff\x0a": f"JPEG XL; {_CONVERT}",
    b"\0\0\0\x0cJXL ": f"JPEG XL; {_CONVERT}",
    b"\0\0\0\x0cjP  ": f"JPEG 2000; {_CONVERT}",
    b"\xff\x4f\xff\x51": f"JPEG 2000; {_CONVERT}",
    b"8BPS": f"PSD (Photoshop); {_EXPORT}",
    b"gimp xcf": f"XCF (GIMP); {_EXPORT}",
    b"%PDF": f"PDF; {_EXPORT}",
    b"%!PS": f"PostScript; {_EXPORT}",
    b"\xc5\xd0\xd3\xc6": f"PostScript; {_EXPORT}",
    b"\x76\x2f\x31\x01": f"OpenEXR; {_CONVERT}",
    b"#?RADIANCE": f"Radiance HDR; {_CONVERT}",
    b"DDS ": f"DDS texture; {_CONVERT}",
    b"\0\0\1\0": f"ICO (icon); {_CONVERT}",
    b"FUJIFILMCCD-RAW": f"camera raw (Fujifilm); {_EXPORT}",
    b"IIRO": f"camera raw (Olympus); {_EXPORT}",
    b"IIU\0": f"camera raw (Panasonic); {_EXPORT}",
    b"FOVb": f"camera raw (Sigma); {_EXPORT}",
    b"PK\3\4": f"zip archive (or a document); {_UNPACK}",
    b"\x1f\x8b": f"gzip archive; {_UNPACK}",
    b"BZh": f"bzip2 archive; {_UNPACK}",
    b"\xfd7zXZ\0": f"xz archive; {_UNPACK}",
    b"\x28\xb5\x2f\xfd": f"zstd archive; {_UNPACK}",
    b"7z\xbc\xaf\x27\x1c": f"7z archive; {_UNPACK}",
    b"Rar!\x1a\7": f"RAR archive; {_UNPACK}",
    b"\x1aE\xdf\xa3": "a video (Matroska or WebM), not a picture",
    b"OggS": "a video or sound (Ogg), not a picture",
    b"ID3": "a sound (MP3), not a picture",
    b"\0\5\x16\7": "macOS metadata of another file (AppleDouble); remove it",
    b"bplist00": "a property list of macOS; if the picture is in iCloud, download it",
    b"\x93NUMPY": "a NumPy array, not a picture",
    b"\x89HDF": "HDF5, not a picture",
    b"SQLite format 3": "a database, not a picture",
    b"MZ": "a program, not a picture",
    b"\x7fELF": "a program, not a picture",
    b"\x89PNG\n": f"a PNG that was copied as text; {_AGAIN} as binary",
    b"\x89PNG\r\r\n": f"a PNG that was copied as text; {_AGAIN} as binary",
    b"\xef\xbf\xbdPNG": f"a PNG that was copied as text; {_AGAIN} as binary",
    b"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd": f"a file that was copied as text; {_AGAIN} as binary",
    b"\xff\xfe": "text (UTF-16), not a picture",
}


# The same for ISO media files, by brand: it follows `ftyp` in bytes 4 to 8.
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF = (b"avif", b"avis")
_BRANDS: dict[bytes, str] = {
    **dict.fromkeys(_HEIC, f"HEIC (iPhone); pip install 'jaxgear[heic]', or {_CONVERT}"),
    **dict.fromkeys(_AVIF, f"AVIF, which this Pillow cannot read; {_CONVERT}"),
    b"crx ": f"camera raw (Canon); {_EXPORT}",
    b"jp2 ": f"JPEG 2000; {_CONVERT}",
}


# The same for text: lower case, without leading blanks.
_TEXTS: dict[bytes, str] = {
    b"<!doctype html": "a web page, not a picture",
    b"<html": "a web page, not a picture",
    b"version https://git-lfs.github.com/": "Git LFS pointer, not the picture; run `git lfs pull`",
    b"../.git/annex/": "git-annex pointer, not the picture; run `git annex get`",
    b"/annex/objects/": "git-annex pointer, not the picture; run `git annex get`",
    b"outs:\n- md5:": "DVC pointer, not the picture; run `dvc pull`",
    b"data:image/": "a data URL in text, not a picture; decode its base64",
    b"http/1.": f"a web server's answer with its headers, not a picture; {_AGAIN}",
}

_KNOWN = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}

_MULTIPART = re.compile(rb"--[^\r\n]{1,200}\r?\ncontent-(disposition|type):")


def what_it_is(data: bytes, formats: Sequence[str]) -> str:
    """Describes a file that Pillow cannot open as one of `formats`, with advice."""
    if not any(data[:4096]):
        return f"nothing but zeros; {_AGAIN}"
    for start, name in _KNOWN.items():
        if data.startswith(start):
            return _damaged(name)
    if data.startswith(b"RIFF"):
        return _riff(data, formats)
    if data[4:8] == b"ftyp":
        return _iso(data, formats)
    for start, description in _STARTS.items():
        if data.startswith(start):
            return description
    if data[257:262] == b"ustar":
        return f"tar archive; {_UNPACK}"
    if data[128:132] == b"DICM":
        return f"DICOM; {_EXPORT}"
    return _text(data[:4096]) or f"not a readable picture ({', '.join(formats)})"


def _damaged(name: str) -> str:
    return f"damaged {name}, or one of a rare kind; {_AGAIN}, or {_CONVERT}"


def _riff(data: bytes, formats: Sequence[str]) -> str:
    kind = data[8:12]
    if kind == b"WEBP" and "WEBP" not in formats:
        return f"WebP, which this Pillow cannot read; {_CONVERT}"
    if kind in (b"AVI ", b"WAVE"):
        return "a video or sound (RIFF), not a picture"
    return _damaged("WebP")


def _iso(data: bytes, formats: Sequence[str]) -> str:
    brand = data[8:12]
    for brands, name in ((_AVIF, "AVIF"), (_HEIC, "HEIF")):
        if brand in brands and name in formats:
            return _damaged(name)
    return _BRANDS.get(brand, "a video (MP4 or MOV), not a picture")


def _text(start: bytes) -> str | None:
    """Describes a text file; None for other files."""
    start = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if _MULTIPART.match(start):
        return "a multipart upload, not a picture; send the file alone, without a form around it"
    for beginning, description in _TEXTS.items():
        if start.startswith(beginning):
            return description
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)  # the cut may split a letter
    except UnicodeDecodeError:
        return None
    if re.search(r"[\x00-\x08\x0e-\x1f\x7f]", text):
        return None
    if "<svg" in text:
        return f"SVG (a drawing); {_EXPORT}"
    if re.match(r"<\?xml|<error|\{", text) and re.search(r"error|denied|not ?found|expired", text):
        return f"an error message of a server, not a picture; {_AGAIN}, with the rights to it"
    if re.match(r"/9j/|ivborw0kggo|r0lgod|uklgr", text) and re.fullmatch(r"[\w+/=\s]+", text):
        return "base64 text, not a picture; decode it"
    return "text, not a picture"
