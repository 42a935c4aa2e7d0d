"""From a folder to pairs of image and mask, by split. Knows names of folders and files, and class tables."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from segcli.classes import ClassTable
from segcli.errors import UsageError
from segcli.matching import match_folders
from segcli.raster.labels import table_of, values_in, written_table
from segcli.raster.names import SUFFIXES, rasters_in

MASK_FOLDERS = ("masks", "labels", "annotations", "groundtruth", "gt", "annot")


@dataclass(frozen=True)
class Pair:
    """One image and its labels, of one size."""

    image: Path
    mask: Path


@dataclass(frozen=True)
class Splits:
    """Pairs to learn from and pairs to choose by."""

    train: tuple[Pair, ...]
    val: tuple[Pair, ...]


def find_pairs(data: Path, val: float, seed: int) -> Splits:
    """The pairs below `data`: as train/ and val/ where they are there, else split by a hash of the name.

    Raises UsageError where there are none, or where an image or a mask has no partner.
    """
    if (data / "train").is_dir() and (data / "val").is_dir():
        return Splits(_pairs_in(data / "train"), _pairs_in(data / "val"))
    # Sorting by hash gives the same split whatever else lies in the folder, and exactly the share asked for.
    pairs = sorted(_pairs_in(data), key=lambda p: hashlib.sha256(f"{seed}/{p.image.stem}".encode()).digest())
    count = max(1, round(val * len(pairs)))
    if count >= len(pairs):
        raise UsageError(data, f"{len(pairs)} pairs", "expected at least 2, to train on some and validate on others")
    return Splits(tuple(sorted(pairs[count:], key=_name)), tuple(sorted(pairs[:count], key=_name)))


def find_classes(data: Path, given: Path | None, pairs: tuple[Pair, ...]) -> ClassTable:
    """The class table: the given file, `classes.json` in `data`, or the values that occur in the masks."""
    return written_table(given, [data]) or table_of(values_in(pair.mask for pair in pairs), data)


def _pairs_in(folder: Path) -> tuple[Pair, ...]:
    images = folder / "images"
    masks = next((folder / name for name in MASK_FOLDERS if (folder / name).is_dir()), None)
    if not images.is_dir() or masks is None:
        raise UsageError(folder, "no images/ and masks/ in it", "expected images and masks of the same names")
    if not rasters_in(images):
        raise UsageError(images, "no images", f"expected files ending in {', '.join(sorted(SUFFIXES))}")
    pairs = match_folders(images, masks)
    if not pairs:
        raise UsageError(images, f"no image has the name of a mask in {masks}", "", "name them alike")
    return tuple(Pair(image, mask) for _, image, mask in pairs)


def _name(pair: Pair) -> str:
    return pair.image.name
