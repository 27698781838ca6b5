"""What the name of a file or folder says: a split of the data, or something that a system left."""

import re
import unicodedata
from collections.abc import Iterable

SPLITS = ("train", "val", "test")
LEFT_OUT = "left_out"
ALL = (*SPLITS, LEFT_OUT)

_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development"), "val"),
    **dict.fromkeys(("test", "tests", "testing", "tst", "te", "holdout"), "test"),
}
# These say that a folder is a part of the data, and not which.
_PART_WORDS = {"split", "fold", "eval", "evaluation", "unseen", "subset"}
_FILLERS = {"set", "data", "dataset", "image", "images", "img", "imgs", "picture", "pictures",
            "photo", "photos", "sample", "samples", "split", "folder", "x"}  # fmt: skip
# `trainset` and `valimages`: words without a separator.
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
    # cameras, and programs that sort pictures
    "canonmsc", "nikon001.dsc", "wmpinfo.xml", "picasa.ini", "descript.ion",
    "digikam4.db", "recognition.db", "similarity.db", "thumbnails-digikam.db",
}  # fmt: skip
# Edits, thumbnails and previews that cameras and programs put beside a picture; shortcuts.
_SIDECARS = {
    ".aae", ".thm", ".lrv", ".ctg", ".xmp", ".dop", ".pp3", ".on1", ".lnk", ".url", ".webloc",
    ".gdoc", ".gsheet",
}  # fmt: skip
_PICTURE = r"\.(jpe?g|png|webp|gif|bmp|tiff?|avif|hei[cf])"
PICTURE_NAME = re.compile(_PICTURE + r"\Z", re.IGNORECASE)
# `IMG_1.jpg.supplemental-metadata.json` (Google Takeout cuts it short), `IMG_1.jpg@SynoResource`
_BESIDE_PICTURE = re.compile(_PICTURE + r"(\.[\w-]*)?(\.json|@syno\w+)", re.IGNORECASE)


def split_of(name: str) -> str | None:
    """The split that the name of a folder says: train, val or test.

    In any case, with numbers and words such as `set` and `images`: `Train`, `valid`, `test_images`,
    `01-training-set`, `trainval` (which is trained on). "" for a name that says that it is part of
    the data and not which (`fold1`, `eval`); None for all others.
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
    """Two names that differ in their split alone, one of them for training: `boots_train` and
    `boots_test`; None if there are none.
    """
    first: dict[tuple[str, ...], dict[str, str]] = {}
    for name in names:
        splits, rest = _read(name)
        if rest and len(splits) == 1:
            first.setdefault(tuple(rest), {}).setdefault(splits.pop(), name)
    for found in first.values():
        if "train" in found and len(found) > 1:
            return found["train"], next(n for split, n in found.items() if split != "train")
    return None


def left_by_system(name: str, folder: bool) -> bool:
    """Whether a file or folder is hidden, or a system, camera or program put it there unasked.

    `_x` only as a folder: cameras name Adobe RGB files `_DSC1.JPG`. `@x` too: a NAS names its
    thumbnails and bin so.
    """
    lower = name.lower()
    if name.startswith((".", "~$")) or name.endswith("~") or lower in _SYSTEM:
        return True
    if folder:
        return name.startswith(("_", "@"))
    dot = lower.rfind(".")
    return (dot > 0 and lower[dot:] in _SIDECARS) or _BESIDE_PICTURE.search(lower) is not None


def _read(name: str) -> tuple[set[str], list[str]]:
    """The splits that the words of a name say, and its other words but for fillers."""
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
