"""From a folder to pairs of image and mask, by split. Knows names of folders and files, and class tables."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segcli.classes import IGNORE, ClassTable
from segcli.errors import UsageError
from segcli.raster.names import SUFFIXES
from segcli.raster.source import Source

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
    if given is not None:
        return ClassTable.read(given)
    if (data / "classes.json").exists():
        return ClassTable.read(data / "classes.json")
    values: set[int] = set()
    for pair in pairs:
        with Source(pair.mask, "mask") as mask:
            for _, pixels in mask.rows(1024):
                values.update(int(value) for value in np.unique(pixels))
    found = sorted(values - {IGNORE})
    if not found or found[0] < 0 or found[-1] > IGNORE:
        raise UsageError(data, f"mask values {found[:20]}", "expected class indices in 0..254, 255 for no label")
    return ClassTable.from_indices(found)


def _pairs_in(folder: Path) -> tuple[Pair, ...]:
    images = folder / "images"
    masks = next((folder / name for name in MASK_FOLDERS if (folder / name).is_dir()), None)
    if not images.is_dir() or masks is None:
        raise UsageError(folder, "no images/ and masks/ in it", "expected images and masks of the same names")
    image_of, mask_of = _by_stem(images), _by_stem(masks)
    alone = [image_of[stem] for stem in sorted(image_of.keys() - mask_of.keys())]
    alone += [mask_of[stem] for stem in sorted(mask_of.keys() - image_of.keys())]
    if alone:
        more = f" and {len(alone) - 3} more" if len(alone) > 3 else ""
        raise UsageError(folder, f"without a partner: {', '.join(map(str, alone[:3]))}{more}")
    if not image_of:
        raise UsageError(images, "no images", f"expected files ending in {', '.join(sorted(SUFFIXES))}")
    return tuple(Pair(image_of[stem], mask_of[stem]) for stem in sorted(image_of))


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise UsageError(path, f"same name as {found[path.stem].name}", "expected one file a name")
            found[path.stem] = path
    return found


def _name(pair: Pair) -> str:
    return pair.image.name
