"""Interprets names of files and folders: splits of the data, and files that a system left."""

import re
import unicodedata
from collections.abc import Iterable

SPLITS = ("train", "val", "test")
LEFT_OUT = "left_out"
ALL = (*SPLITS, LEFT_OUT)
OWN = (*ALL, "")  # "": the folder gives an image no split

_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development"), "val"),
    **dict.fromkeys(("test", "tests", "testing", "tst", "te", "holdout"), "test"),
}
# A folder with such a name is a part of the data, but its split is unknown.
_PART_WORDS = {"split", "fold", "eval", "evaluation", "unseen", "subset"}
_FILLERS = {"set", "data", "dataset", "image", "images", "img", "imgs", "picture", "pictures",
            "photo", "photos", "sample", "samples", "split", "folder", "x"}  # fmt: skip
# Words without a separator, such as `trainset` and `valimages`.
_JOINED = re.compile(
    f"({'|'.join(sorted(_SPLIT_WORDS, key=len, reverse=True))})"
    f"(val|{'|'.join(sorted(_FILLERS, key=len, reverse=True))})"
)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+")

_SYSTEM = {
    # Windows
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "recycler",
    "recycled", "system volume information", "found.000", "autorun.inf",
    # macOS and its shared volumes
    "icon\r", "network trash folder", "temporary items", "thevolumesettingsfolder",
    # mount points and snapshots
    "lost+found", "~snapshot", "#snapshot",
    # NAS: Synology, QNAP (names with @ are below)
    "#recycle", "synoindex_media_info",
    # cameras, and programs that sort images
    "canonmsc", "nikon001.dsc", "wmpinfo.xml", "picasa.ini", "descript.ion",
    "digikam4.db", "recognition.db", "similarity.db", "thumbnails-digikam.db",
}  # fmt: skip
# Edits, thumbnails and previews that cameras and programs write beside an image; shortcuts.
_SIDECARS = {
    ".aae", ".thm", ".lrv", ".ctg", ".xmp", ".dop", ".pp3", ".on1", ".lnk", ".url", ".webloc",
    ".gdoc", ".gsheet",
}  # fmt: skip
_PICTURE = r"\.(jpe?g|png|webp|gif|bmp|tiff?|avif|hei[cf])"
PICTURE_NAME = re.compile(_PICTURE + r"\Z", re.IGNORECASE)
# `IMG_1.jpg.supplemental-metadata.json` (Google Takeout may truncate it), `IMG_1.jpg@SynoResource`
_BESIDE_PICTURE = re.compile(_PICTURE + r"(\.[\w-]*)?(\.json|@syno\w+)", re.IGNORECASE)


def split_of(name: str) -> str | None:
    """The split that a folder name means: "train", "val" or "test".

    Case, numbers and words such as `set` and `images` are ignored: `Train`, `valid`, `test_images`,
    `01-training-set`, `trainval` (counts as train). "" for a part of the data of unknown split
    (`fold1`, `eval`); None for all other names.
    """
    splits, rest = _read(name)
    if rest and not splits and set(rest) <= _PART_WORDS:
        return ""
    if rest or not splits:
        return "" if splits and set(rest) <= _PART_WORDS else None
    if "train" in splits:
        return "train"
    return splits.pop() if len(splits) == 1 else ""


def splits_in_names(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that differ only in their split, one for training, or None.

    For example `boots_train` and `boots_test`.
    """
    by_rest: dict[tuple[str, ...], dict[str, str]] = {}
    for name in names:
        splits, rest = _read(name)
        if rest and len(splits) == 1:
            by_rest.setdefault(tuple(rest), {}).setdefault(splits.pop(), name)
    for by_split in by_rest.values():
        if "train" in by_split and len(by_split) > 1:
            return by_split["train"], next(n for split, n in by_split.items() if split != "train")
    return None


def left_by_system(name: str, folder: bool) -> bool:
    """Whether a file or folder is hidden, or was left by a system, camera or program.

    `_x` counts only as a folder, because cameras name Adobe RGB files `_DSC1.JPG`. So does `@x`,
    the name of thumbnail folders and bins on a NAS.
    """
    lower = name.lower()
    if name.startswith((".", "~$")) or name.endswith("~") or lower in _SYSTEM:
        return True
    if folder:
        return name.startswith(("_", "@"))
    dot = lower.rfind(".")
    return (dot > 0 and lower[dot:] in _SIDECARS) or _BESIDE_PICTURE.search(lower) is not None


def _read(name: str) -> tuple[set[str], list[str]]:
    """The splits that the words of a name mean, and its other words without fillers."""
    words = []
    name = re.sub(r"hold[ _-]out", "holdout", unicodedata.normalize("NFKC", name), flags=re.I)
    for word in map(str.lower, _WORDS.findall(name)):
        joined = _JOINED.fullmatch(word)
        words += joined.groups() if joined else [word]
    splits = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
    rest = [word for word in words if word not in _SPLIT_WORDS]
    if not splits:
        return splits, rest
    return splits, [word for word in rest if word not in _FILLERS]
