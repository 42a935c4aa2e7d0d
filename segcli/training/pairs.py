"""From a folder or a table to pairs of image and mask, by split. Knows names of folders and files."""

import csv
import hashlib
import heapq
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segcli.errors import UsageError, some
from segcli.matching import match_folders, matched_folders
from segcli.raster.burn import VECTORS
from segcli.raster.labels import TABLES
from segcli.raster.names import SUFFIXES, is_folder, rasters_in
from segcli.raster.zarrs import is_zarr
from segcli.tiling.manifest import MANIFEST as TILES

MASK_FOLDERS = ("masks", "labels", "annotations", "groundtruth", "gt", "annot")
VAL_FOLDERS = ("val", "valid", "validation")
INSTANCES = "instances"
"""The folder beside images and masks where masks hold a number for each object."""


@dataclass(frozen=True)
class Pair:
    """One image and its labels, of one size; images of one `group` stay in one split. Of a stack `plane` is which of
    its images is meant, from 0; None: of a single image that one, of a stack all of them."""

    image: Path
    mask: Path
    group: str = ""
    instances: Path | None = None
    plane: int | None = None


def named(path: Path, pair: Pair) -> str:
    """One of the files of a pair, and which image of it, for messages."""
    return f"{path}" if pair.plane is None else f"{path}, image {pair.plane + 1}"


@dataclass(frozen=True)
class Splits:
    """Pairs to learn from and pairs to choose by; `is_given` where the data say which are which.

    There are none to choose by where there is one pair alone, which may be a stack: then its images are split, by
    `share` and `fold` (`find_pairs`), once it is known what they are.
    """

    train: tuple[Pair, ...]
    val: tuple[Pair, ...]
    is_given: bool = False
    share: float = 0.2
    fold: tuple[int, int] | None = None

    @property
    def all(self) -> tuple[Pair, ...]:
        return self.train + self.val


def find_pairs(
    data: Path, val: float, seed: int, group_by: str | None = None, fold: tuple[int, int] | None = None
) -> Splits:
    """The pairs below `data`, or in the table that it is: by train/ and val/ or a column `split` where these are there,
    else split by a hash of `seed` and the group, or the name where there are no groups. Nothing else moves it: what
    goes on from a training's weights is not to be judged by the images that these learnt from. A `fold`, (which, from
    1, of how many), takes the place of the share `val`: each pair is for validation in one of them.

    Raises UsageError where there are none, or where an image or a mask has no partner.
    """
    if not data.exists():
        raise UsageError(data, "no such file or folder", "expected a folder with images/ and masks/, or a CSV file")
    if data.is_file():
        rows = _table(data)
        pairs = [pair for pair, split in rows if split in ("", "train")]
        val_pairs = tuple(pair for pair, split in rows if split == "val")
        if val_pairs:
            if not pairs:
                raise UsageError(data, "all pairs are for validation", "expected some to train on")
            return Splits(tuple(pairs), val_pairs, is_given=True)
    else:
        learnt, given = _folders(data)
        pairs = list(_pairs_in(learnt))
        if given is not None:
            return Splits(tuple(pairs), _pairs_in(given), is_given=True)
    if group_by is not None:
        pairs = [replace(pair, group=_group(pair, group_by)) for pair in pairs]
    return _split(data, pairs, val, seed, fold)


def _folders(data: Path) -> tuple[Path, Path | None]:
    """Where images and masks to learn from lie, train/ or `data` itself, and where those to validate on do, if any."""
    learnt = data / "train" if (data / "train").is_dir() else data
    return learnt, next((data / name for name in VAL_FOLDERS if (data / name).is_dir()), None)


def left_out(data: Path) -> Iterator[str]:
    """What lies in a folder of data as images do and is not read, in lines for people: it may have been meant."""
    if not data.is_dir():
        return
    learnt, given = _folders(data)
    for folder in filter(None, (learnt, given)):
        if inner := _folders_in(folder / "images"):
            yield f"{folder / 'images'}: what is in its folders {inner} is not read; {_MOVE}"
    for folder, instead in ((data, learnt), *((data / name, given) for name in VAL_FOLDERS)):
        if folder != instead and (folder / "images").is_dir() and rasters_in(folder / "images"):
            yield f"{folder / 'images'}: not read, because {instead} is there"


_MOVE = "move it up, or name the pairs in a CSV file"


def _folders_in(images: Path) -> str:
    """Names of the folders there that hold images, the first ones; empty where none does."""
    folders = (path for path in sorted(images.iterdir()) if is_folder(path) and not is_zarr(path))
    inner = [path.name for path in folders if rasters_in(path, recursive=True)]
    return some(inner, 3)


def _split(data: Path, pairs: list[Pair], val: float, seed: int, fold: tuple[int, int] | None) -> Splits:
    """Whole groups, in the order of their hash, until the share is reached as nearly as may be; or those of a fold."""
    if not pairs:
        raise UsageError(data, "0 pairs", "expected at least 2, to train on some and validate on others")
    if len(pairs) == 1:
        return Splits(tuple(pairs), (), share=val, fold=fold)
    groups: dict[str, list[Pair]] = {}
    for pair, name in zip(pairs, _names([pair.image for pair in pairs]), strict=True):
        groups.setdefault(pair.group or name, []).append(pair)
    if len(groups) < 2:
        raise UsageError(data, f"all pairs are of group {next(iter(groups))!r}", "expected at least 2 groups",
                         "give another --group-by, or name the parts in train/ and val/")  # fmt: skip

    # Sorting by hash gives the same split whatever else lies in the folder.
    def place(group: str) -> bytes:
        return hashlib.sha256(f"{seed}/{group}".encode("utf-8", "surrogateescape")).digest()

    order = sorted(groups, key=place)
    sizes = {group: len(groups[group]) for group in order}
    if fold is not None and fold[1] > len(order):
        raise UsageError("--fold", f"{fold[1]} folds", f"{data} has {len(order)} images or groups to share out")
    chosen = _of_share(sizes, val * len(pairs)) if fold is None else _folds(sizes, fold[1])[fold[0] - 1]
    held_out = frozenset(chosen)  # of a hundred thousand tiles a list would be looked through for minutes
    rest = [group for group in order if group not in held_out]
    return Splits(_sorted(pair for g in rest for pair in groups[g]), _sorted(p for g in chosen for p in groups[g]))


def in_planes(splits: Splits, images: Mapping[Pair, Iterable[Pair]], volumes: Sequence[int]) -> Splits:
    """The splits with each pair replaced by the `images` that it is: those of a stack stay in one split. Of a stack
    alone, those to choose by follow each other, the last ones or those of a fold, because images next to each other are
    often alike; whole `volumes`, of which these are the numbers by image, where there are enough.

    Raises UsageError where there is one image alone.
    """
    train, val = (tuple(one for pair in part for one in images[pair]) for part in (splits.train, splits.val))
    if not val:
        name, count = train[0].image, len(train)
        if count < 2:
            raise UsageError(name, "1 pair", "expected at least 2, to train on some and validate on others")
        which, parts = splits.fold or (1, 1)
        if parts > count:
            raise UsageError("--fold", f"{parts} folds", f"{name} has {count} images to share out")
        units = volumes if len(set(volumes)) >= max(2, parts) else range(count)
        count = len(set(units))
        first, end = count * (which - 1) // parts, count * which // parts
        if splits.fold is None:
            first = count - min(max(1, round(splits.share * count)), count - 1)
        chosen = set(sorted(set(units))[first:end])
        val = tuple(pair for pair, unit in zip(train, units, strict=True) if unit in chosen)
        train = tuple(pair for pair, unit in zip(train, units, strict=True) if unit not in chosen)
    return replace(splits, train=train, val=val)


def _of_share(sizes: dict[str, int], wanted: float) -> list[str]:
    """Groups, in their order, that have as many pairs as are wanted, as nearly as may be."""
    taken = 0
    chosen: list[str] = []
    for group, size in list(sizes.items())[:-1]:
        if abs(taken + size - wanted) >= abs(taken - wanted):
            if chosen:
                break
            continue  # alone it is further from the share than nothing
        chosen.append(group)
        taken += size
    return chosen or [min(sizes, key=sizes.__getitem__)]


def _folds(sizes: dict[str, int], count: int) -> list[list[str]]:
    """Groups in so many parts, each in one, of as many pairs as may be alike: the larger ones first, always to the
    smallest part so far."""
    folds: list[list[str]] = [[] for _ in range(count)]
    parts = [(0, number) for number in range(count)]
    for group in sorted(sizes, key=sizes.__getitem__, reverse=True):
        taken, number = heapq.heappop(parts)
        folds[number].append(group)
        heapq.heappush(parts, (taken + sizes[group], number))
    return folds


def _names(images: list[Path]) -> list[str]:
    """What tells images apart: their names, or where several have one, in a folder each, their paths below all."""
    stems = [image.stem for image in images]
    if len(set(stems)) == len(stems):
        return stems
    places = [Path(os.path.abspath(image)) for image in images]  # noqa: PTH100  # absolute() leaves .. standing
    base = os.path.commonpath([place.parent for place in places])
    return [place.relative_to(base).with_suffix("").as_posix() for place in places]


def _sorted(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    return tuple(sorted(pairs, key=lambda pair: str(pair.image)))


def _group(pair: Pair, pattern: str) -> str:
    found = re.search(pattern, pair.image.stem) or re.search(pattern, pair.image.as_posix())
    if found is None:
        raise UsageError(pair.image, f"--group-by {pattern!r} finds nothing in its name", "", "give another pattern")
    return (found[1] or "") if found.re.groups else found[0]


def _pairs_in(folder: Path) -> tuple[Pair, ...]:
    images = folder / "images"
    masks = next((folder / name for name in MASK_FOLDERS if (folder / name).is_dir()), None)
    if not images.is_dir() or masks is None:
        missing = [name for name, there in (("images/", images.is_dir()), ("masks/", masks is not None)) if not there]
        others = ", ".join(MASK_FOLDERS[1:])
        remedy = f"masks may also lie in {others}, or be named in a CSV file with the columns image,mask"
        if missing == ["masks/"] and (folder / INSTANCES).is_dir():
            remedy = f"{INSTANCES}/ holds numbers of objects; make masks/ of it: their class where one is, else 0"
        raise UsageError(folder, f"no {' and no '.join(missing)} in it", "expected images and masks of the same names",
                         remedy)  # fmt: skip
    if not rasters_in(images):
        if inner := _folders_in(images):
            raise UsageError(images, f"no images, but in its folders {inner}", "folders in it are not read", _MOVE)
        raise UsageError(images, "no images", f"expected files ending in {', '.join(sorted(SUFFIXES))}")
    pairs = match_folders(images, masks, more=VECTORS, without=frozenset(masks / name for name in (*TABLES, TILES)))
    if not pairs:
        raise UsageError(images, f"no image has the name of a mask in {masks}", "", "name them alike, or "
                         "give a CSV file with the columns image,mask")  # fmt: skip
    numbered = {}
    if (folder / INSTANCES).is_dir():
        numbered = {image: path for _, image, path in matched_folders(images, folder / INSTANCES).pairs}
    return tuple(Pair(image, mask, instances=numbered.get(image)) for _, image, mask in pairs)


def _table(path: Path) -> list[tuple[Pair, str]]:
    """Pairs and their splits from a CSV file; relative paths are relative to it."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(path, f"cannot be read: {error}", "expected a folder, or a CSV file of pairs") from error
    if not rows or not {"image", "mask"} <= rows[0].keys():
        raise UsageError(path, "no table of pairs", "expected the columns image and mask, and maybe split and group")
    found = []
    for number, row in enumerate(rows, start=2):
        split = (row.get("split") or "").strip().lower()
        split = "val" if split in VAL_FOLDERS else split
        if not row["image"] or not row["mask"] or split not in ("", "train", "val", "test"):
            raise UsageError(
                path, f"line {number}: {row}", "expected an image, a mask, and train, val, test or no split"
            )
        instances = path.parent / row["instances"] if row.get("instances") else None
        pair = Pair(path.parent / row["image"], path.parent / row["mask"], row.get("group") or "", instances)
        found.append((pair, split))
    return found
