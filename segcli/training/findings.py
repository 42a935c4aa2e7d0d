"""What the look at a data set found: what is odd, in lines for people, and what there is, for people and programs."""

import re
from collections import Counter
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any

import numpy as np

from segcli.options import bands_text
from segcli.training.pairs import INSTANCES, Pair, Splits, named
from segcli.training.survey import Facts, Survey

LIKELY_OBJECTS = 10
"""From so many classes on masks may hold numbers of objects."""

CONTRADICTION = 0.5
"""Share of an image's objects, or of its foreground, from which numbers and mask are not of one image."""


def warnings(found: Survey, names: tuple[str, ...]) -> Iterator[str]:
    """What is odd about the data set, in lines for people."""
    splits, facts = found.splits, found.facts
    yield from _empty(facts)
    yield from _hidden(facts)
    yield from _black_and_white(facts)
    yield from _contradictions(facts, len(names))
    if len(names) >= LIKELY_OBJECTS and all(_are_numbered(fact) for fact in facts.values()):
        yield (f"{len(names)} classes, and each mask has them from the first on without a gap: if these are numbers of "
               f"objects, they belong in {INSTANCES}/, and masks/ has a class for all of them")  # fmt: skip
    for n, name in enumerate(names):
        called = name if name.startswith("class ") else f"class {name}"
        if not any(facts[pair].pixels[n] for pair in splits.train):
            yield f"{called} is in no training mask: it will never be predicted"
        elif not any(facts[pair].pixels[n] for pair in splits.val):
            yield f"{called} is in no validation mask: its IoU stays unknown, and mIoU is without it"
    learnt, seen = ({facts[pair].content for pair in part} for part in (splits.train, splits.val))
    same: dict[str, list[Pair]] = {}
    for pair in splits.all:
        if pair.plane is None or facts[pair].low < facts[pair].high:  # many a stack begins and ends with nothing
            same.setdefault(facts[pair].content, []).append(pair)
    alike: dict[tuple[str, ...], list[list[str]]] = {}  # of stacks in one line
    for content, pairs in same.items():
        if content in learnt and content in seen:
            of_files = tuple(str(pair.image) for pair in pairs)
            alike.setdefault(of_files, []).append([named(pair.image, pair) for pair in pairs])
    for images in alike.values():
        more = f", and {len(images) - 1} more of these" if len(images) > 1 else ""
        yield f"the same image is in training and in validation: {', '.join(images[0][:4])}{more}"
    if not splits.is_given and len({pair.image for pair in splits.all}) == 1:
        yield (f"{splits.val[0].image}: {len(splits.val)} of its {len(splits.all)} images are for validation, the "
               "others for training: where those next to each other are alike, the figures are too good")  # fmt: skip
    yield from _neighbours(splits, facts)
    yield from _unlike_bands(found)


def _empty(facts: dict[Pair, Facts]) -> Iterator[str]:
    """Images and masks with nothing in them; of a stack in one line."""
    odd: dict[tuple[Path, str], list[Pair]] = {}
    for pair, fact in facts.items():
        if fact.low >= fact.high:
            odd.setdefault((pair.image, "constant, or no data at all"), []).append(pair)
        if not fact.pixels.any():
            odd.setdefault((pair.mask, "not one labelled pixel"), []).append(pair)
        if fact.stray_polygons:
            lost = f"none of its {fact.stray_polygons} polygons lies on {pair.image}"
            odd.setdefault((pair.mask, lost), []).append(pair)
    for (path, what), pairs in odd.items():
        more = f" and {len(pairs) - 1} more" if len(pairs) > 1 and pairs[0].plane is not None else ""
        yield f"{named(path, pairs[0])}{more}: {what}"


def _as_in(odd: Sized, word: str = "as in") -> str:
    """How many there are beside the first one, which is named."""
    return f", {word} {len(odd) - 1} more" if len(odd) > 1 else ""


def _black_and_white(facts: dict[Pair, Facts]) -> Iterator[str]:
    """Masks of 255 and one class among masks of several: their objects may be meant, and would not be learnt."""
    odd = [pair for pair, fact in facts.items() if fact.marked and np.count_nonzero(fact.pixels) == 1]
    if odd and any(np.count_nonzero(fact.pixels) > 1 and not fact.marked for fact in facts.values()):
        yield (f"{named(odd[0].mask, odd[0])}: no class but one, and 255, which is no label{_as_in(odd)}; if it stands "
               "for a class, as in black-and-white masks of ImageJ, write that class's index")  # fmt: skip


def _contradictions(facts: dict[Pair, Facts], classes: int) -> Iterator[str]:
    """Numbers of objects that are those of other masks, or none: gaps and weights of borders would be drawn wrongly, or
    not at all, and no other figure tells."""
    odd: dict[str, list[tuple[Pair, float]]] = {}
    for pair, fact in facts.items():
        numbered, lost, bare = fact.objects
        foreground = numbered - lost + bare
        if lost > CONTRADICTION * numbered:
            odd.setdefault("of the pixels of its objects are background", []).append((pair, lost / numbered))
        elif classes == 2 and bare > CONTRADICTION * foreground:  # of more classes some may have no objects
            odd.setdefault("of the foreground belong to no object", []).append((pair, bare / foreground))
    for what, pairs in odd.items():
        pair, share = pairs[0]
        yield (f"{named(pair.instances or pair.mask, pair)}: {share:.0%} {what} by {pair.mask}{_as_in(pairs)}; are "
               "these the objects of that mask?")  # fmt: skip


def _unlike_bands(found: Survey) -> Iterator[str]:
    """Images whose bands are called otherwise at the same place: they may be in another order."""
    if found.chosen is not None and all(isinstance(band, str) for band in found.chosen):
        return
    named = {fact.names: pair.image for pair, fact in found.facts.items() if any(fact.names)}
    if len(named) > 1:
        (first, one), (second, other), *_ = named.items()
        yield (f"{one} has bands {', '.join(first)}, {other} has {', '.join(second)}: --bands "
               f"{bands_text([name for name in first if name][:3])} and the like takes them by name")  # fmt: skip


def _hidden(facts: dict[Pair, Facts]) -> Iterator[str]:
    """What masks hide behind their nodata value: whole classes would be missing, and no other figure tells."""
    odd = [(pair, fact) for pair, fact in facts.items() if fact.hidden]
    if not odd:
        return
    (pair, fact), pixels = odd[0], sum(fact.hidden for _, fact in odd)
    value = fact.nodata
    yield (f"{named(pair.mask, pair)}: nodata is {value}{_as_in(odd)}, so that {pixels} pixels have no label and are "
           f"not learnt; if {value} is a class, take nodata away (gdal_edit.py -unsetnodata), else say --ignore {value}"
           )  # fmt: skip


def _are_numbered(fact: Facts) -> bool:
    """Whether the classes of a mask are the first ones, as objects are counted; with a background or without."""
    there = np.flatnonzero(fact.pixels)
    return len(there) == 0 or bool(there[-1] + 1 - there[0] == len(there) and there[0] <= 1)


def _neighbours(splits: Splits, facts: dict[Pair, Facts]) -> Iterator[str]:
    """Tiles of one scene on both sides: validation figures would be too good."""
    placed = [[(pair, box) for pair in part if (box := facts[pair].bounds)] for part in (splits.train, splits.val)]
    boxes = np.array([box for _, box in placed[0]]).reshape(-1, 4)
    touching = []
    for pair, (left, bottom, right, top) in placed[1]:
        near = np.zeros(len(boxes), bool)
        for turn in (-360, 0, 360):  # longitudes begin anew in the Pacific
            near |= (boxes[:, 0] + turn <= right) & (boxes[:, 2] + turn >= left)
        near &= (boxes[:, 1] <= top) & (boxes[:, 3] >= bottom)
        if near.any():
            touching.append((pair, placed[0][int(near.argmax())][0]))
    keep = _KEEP_GIVEN if splits.is_given else _KEEP
    groups = [{pair.group for pair in part if pair.group} for part in (splits.train, splits.val)]
    if both := sorted(groups[0] & groups[1]):
        yield f"group {both[0]} is in training and in validation{_as_in(both, 'as')}; {_KEEP_GIVEN}"
    if touching:
        one, other = touching[0]
        yield (f"{len(touching)} validation images touch training images on earth, such as {one.image.name} and "
               f"{other.image.name}; {keep}")  # fmt: skip
        return
    names = [{_scene(pair) for pair in part if not pair.group} for part in (splits.train, splits.val)]
    counts = Counter(map(_scene, splits.all))
    # What has a group is told by that, not by its name.
    both = sorted(scene for scene in names[0] & names[1] if scene and counts[scene] > 1)
    if both and len(names[0] | names[1]) > 1:  # with one name for all, the numbers are no parts of anything
        yield f"parts of {both[0]} are in training and in validation, by their names; {keep}"


_KEEP = "--group-by keeps the parts of a scene together"
_KEEP_GIVEN = "keep the parts of a scene on one side of the split"


def _scene(pair: Pair) -> str:
    return _SERIAL.sub("", pair.image.stem)


_SERIAL = re.compile(r"([-_ ]?(r|c|x|y|row|col|tile|part|patch)?\d+)+$", re.IGNORECASE)


def tables(found: Survey, names: tuple[str, ...]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """What the data set holds: title, head and rows."""
    seen = as_record(found, names)
    rows = []
    for part in seen["data"]:
        (low, high), (left, right) = part["heights"], part["widths"]
        sizes, bands = f"{low} x {left} to {high} x {right}", f"{part['bands']} of {part['dtype']}"
        rows.append([part["split"], str(part["images"]), sizes, f"{part['megapixels']:.2f}", bands])
    yield "data", ["split", "images", "height x width", "Mpx", "bands"], rows
    lines = [
        [row["class"], *(cell for part in SPLITS for cell in (_share(row[part]), str(row[part]["images"])))]
        for row in seen["labelled"]
    ]
    none = (cell for part in SPLITS for cell in (_share(seen["unlabelled"][part]), seen["unlabelled"][part]["images"]))
    lines.append(["without a label, of all", *map(str, none)])
    yield "labelled pixels", ["class", "train", "in images", "val", "in images"], lines


def _share(cell: dict[str, Any]) -> str:
    return f"{cell['share']:.2%}"


def as_record(found: Survey, names: tuple[str, ...]) -> dict[str, Any]:
    """The same for programs: `data` of each split, `labelled` of each class its share of the pixels of each split that
    have a label, and in how many images it is; `unlabelled` the same of pixels without one, as a share of all that are
    data in the image."""
    data: list[dict[str, Any]] = []
    labelled: list[dict[str, Any]] = [{"class": name} for name in names]
    unlabelled: dict[str, Any] = {}
    for name, pairs in zip(SPLITS, (found.splits.train, found.splits.val), strict=True):
        facts = [found.facts[pair] for pair in pairs]
        heights, widths = [fact.height for fact in facts], [fact.width for fact in facts]
        data.append({
            "split": name, "images": len(facts), "heights": [min(heights), max(heights)],
            "widths": [min(widths), max(widths)], "megapixels": sum(fact.height * fact.width for fact in facts) / 1e6,
            "bands": found.bands, "dtype": ", ".join(sorted({fact.dtype for fact in facts})),
        })  # fmt: skip
        counts = np.stack([fact.pixels for fact in facts])  # (image, class)
        total = max(1, int(counts.sum()))
        for n, row in enumerate(labelled):
            row[name] = {"share": int(counts[:, n].sum()) / total, "images": int((counts[:, n] > 0).sum())}
        without = np.array([fact.unlabelled for fact in facts])
        all_pixels = max(1, int(counts.sum() + without.sum()))
        unlabelled[name] = {"share": int(without.sum()) / all_pixels, "images": int((without > 0).sum())}
    return {"data": data, "labelled": labelled, "unlabelled": unlabelled}


SPLITS = ("train", "val")
