"""Gets the 2,122 gear photographs (33 MB) and verifies them: `jaxgear get gear`.

Takes only the files that the manifest of sha256 sums (gear.sha256) names, so nothing else in an
archive can reach the disk. Unpacks them beside the target, which appears complete or not at all.
"""

import hashlib
import http.client
import os
import shutil
import stat
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO

from jaxgear.errors import DataError

URL = "https://challenge.blob.core.windows.net/challengefiles/gear_images.zip"
MANIFEST = Path(__file__).with_name("gear.sha256")
ALTERNATIVES = (
    "pass the zip or a folder of the pictures with --from, or train on the drawn set: "
    "--data drawn:600"
)

_MAX_DOWNLOAD = 200 * 2**20
_MAX_ENTRIES = 20_000
_MAX_FILE = 20 * 2**20
_MAX_TOTAL = 500 * 2**20
_TIMEOUT = 20  # seconds without a byte
_PIECE = 2**18

Files = dict[str, Callable[[], IO[bytes]]]  # name in the source -> function that opens it


def read_manifest(path: Path) -> dict[str, str]:
    """Lines `<sha256>  <class>/<file>` -> path: sha256."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {name: sha256 for sha256, name in (line.split(maxsplit=1) for line in lines)}


def get_gear(
    source: Path | None,
    target: Path,
    *,
    manifest: dict[str, str],
    url: str = URL,
    allow_incomplete: bool = False,
) -> str:
    """Puts the pictures that `manifest` lists at `target`; returns a line about the result.

    Args:
        source: a zip, a folder, or None to download `url`. The pictures may lie in a top folder.
        target: a folder that does not exist, is empty, or already holds these pictures.
        allow_incomplete: accept missing pictures; changed ones are never accepted.

    Raises:
        DataError: no source, an unsafe archive, missing or changed pictures, or a target with other
            files. Nothing is left behind then.
    """
    target = Path(os.path.realpath(target))  # fill the folder that a link names; keep the link
    if target.exists() and not target.is_dir():
        raise DataError(f"{target}: not a folder; choose another --to")
    if target.exists() and any(target.iterdir()):
        return _check_in_place(target, manifest, allow_incomplete)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise DataError(f"{target.parent}: cannot be written: {error.strerror}") from None
    try:
        with ExitStack() as stack:
            if source is None:
                source = scratch / "download.zip"
                _download(url, source)
            files = _files(source, stack)
            matched, extra = _match(files, manifest)
            changed = _unpack(matched, scratch / "pictures", manifest)
        _require(str(source), manifest.keys() - matched.keys(), changed, allow_incomplete)
        (scratch / "pictures").chmod(0o755)
        (scratch / "pictures").replace(target)
    except OSError as error:
        raise DataError(f"{error.filename or target}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return f"{target}: {len(matched)} of {len(manifest)} pictures in place" + (
        f" ({len(extra)} other files in the source were not taken)" if extra else ""
    )


def _check_in_place(target: Path, manifest: dict[str, str], allow_incomplete: bool) -> str:
    with ExitStack() as stack:
        files = _files(target, stack)
        missing = manifest.keys() - files.keys()
        changed = [name for name in manifest.keys() & files.keys()
                   if _hash(files[name]) != manifest[name]]  # fmt: skip
    extra = {name for name in files.keys() - manifest.keys() if "/." not in f"/{name}"}
    if changed or extra or (missing and not allow_incomplete):
        raise DataError(
            f"{target}: exists and holds something else ({len(missing)} pictures missing, "
            f"{len(changed)} changed, {len(extra)} extra); move it away or choose another --to"
        )
    return f"{target}: {len(manifest) - len(missing)} of {len(manifest)} pictures already in place"


def _require(source: str, missing: set[str], changed: list[str], allow_incomplete: bool) -> None:
    if not changed and (allow_incomplete or not missing):
        return
    names = sorted(changed) + sorted(missing)
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    hint = "" if changed else "; --allow-incomplete accepts missing ones"
    raise DataError(
        f"{source}: not the gear pictures: {len(missing)} missing, {len(changed)} changed "
        f"({shown}){hint}"
    )


def _download(url: str, path: Path) -> None:
    """Streams `url` to `path`, with a line every 5 MB or so."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer, path.open("wb") as file:
            length = int(answer.headers.get("Content-Length") or 0)
            print(f"downloading {url} ({length / 2**20:.1f} MB)", flush=True)
            done = shown = 0
            while piece := answer.read(_PIECE):
                done += len(piece)
                if done > _MAX_DOWNLOAD:
                    raise DataError(f"{url}: larger than {_MAX_DOWNLOAD // 2**20} MB; stopped")
                file.write(piece)
                if done - shown >= 5 * 2**20:
                    shown = done
                    print(f"  {done / 2**20:.0f} MB", flush=True)
            if done < length:
                raise DataError(f"{url}: the connection broke after {done} of {length} bytes")
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # the error is also the response, with an open connection
        raise DataError(f"cannot download {url}: {reason}; {ALTERNATIVES}") from None


def _files(source: Path, stack: ExitStack) -> Files:
    """The files of a zip or a folder: name -> function that opens it. `stack` closes the zip."""
    if source.is_dir():
        return {
            path.relative_to(source).as_posix(): lambda path=path: path.open("rb")
            for folder, _, names in os.walk(source)
            for path in (Path(folder, name) for name in names)
            if path.is_file() and not path.is_symlink()
        }
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; {ALTERNATIVES}")
    try:
        archive = stack.enter_context(zipfile.ZipFile(source))
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{source}: not a zip that can be read ({error})") from None
    _check_safe(archive, str(source))
    return {
        info.filename: lambda info=info: archive.open(info)
        for info in archive.infolist()
        if not info.is_dir()
    }


def _check_safe(archive: zipfile.ZipFile, name: str) -> None:
    """Refuses an archive that is too large or has an entry that could harm."""
    entries = archive.infolist()
    total = sum(info.file_size for info in entries)
    if len(entries) > _MAX_ENTRIES or total > _MAX_TOTAL:
        raise DataError(f"{name}: unsafe zip: {len(entries)} entries, {total} bytes unpacked")
    seen = set()
    for info in entries:
        path = PurePosixPath(info.filename or "..")
        if (
            path.is_absolute()
            or ".." in path.parts
            or "\\" in info.filename
            or ":" in path.parts[0]
        ):
            raise DataError(f"{name}: unsafe zip: path {info.filename!r}")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise DataError(f"{name}: unsafe zip: {info.filename!r} is a symbolic link")
        if info.flag_bits & 1:
            raise DataError(f"{name}: unsafe zip: {info.filename!r} is encrypted")
        if info.filename in seen:
            raise DataError(f"{name}: unsafe zip: {info.filename!r} occurs twice")
        seen.add(info.filename)


def _match(files: Files, manifest: dict[str, str]) -> tuple[Files, set[str]]:
    """The manifest's files in the top folder that holds most of them, and the other names."""
    tops = {""} | {name.split("/", 1)[0] + "/" for name in files if "/" in name}
    best = max(sorted(tops), key=lambda top: sum(top + name in files for name in manifest))
    matched = {name: files[best + name] for name in manifest if best + name in files}
    return matched, files.keys() - {best + name for name in matched}


def _unpack(files: Files, folder: Path, manifest: dict[str, str]) -> list[str]:
    """Writes the files below `folder`; returns the names whose bytes differ from the manifest."""
    folder.mkdir()
    changed = []
    for name, opened in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            if _hash(opened, file) != manifest[name]:
                changed.append(name)
    return changed


def _hash(opened: Callable[[], IO[bytes]], copy: IO[bytes] | None = None) -> str | None:
    """The sha256 of a file, None if it is damaged or too large; also writes its bytes to `copy`."""
    digest = hashlib.sha256()
    done = 0
    try:
        with opened() as file:
            while piece := file.read(_PIECE):
                done += len(piece)
                if done > _MAX_FILE:  # an archive may declare a smaller size
                    return None
                digest.update(piece)
                if copy is not None:
                    copy.write(piece)
    except (zipfile.BadZipFile, zipfile.zlib.error, EOFError, NotImplementedError):
        return None
    return digest.hexdigest()
