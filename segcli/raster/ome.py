"""What OME metadata say of a TIFF file: which of its pages make images, of one position or several, and what of them
lies in other files. Pixels are not read here.

Source: the OME-TIFF specification 6 (docs.openmicroscopy.org), TiffData.
"""

import math
import re
from dataclasses import dataclass
from itertools import product
from xml.etree import ElementTree

from segcli.raster import pixel_size
from segcli.raster.ifd import BrokenTiffError, Page, is_level


@dataclass(frozen=True)
class DataSet:
    """Numbers of the pages that lie in a file, in the order of `axes`, of which C, the channels, runs fastest, and I,
    the positions of a stage, slowest; axes of length 1 are left out. `calibration` is `Grid`'s."""

    axes: str
    shape: tuple[int, ...]
    pages: list[int]
    calibration: dict[str, float]


def data_set(text: str, found: list[Page]) -> DataSet | None:
    """The planes that lie in this file; its metadata, the XML `text`, may name those of other files, too. None where
    they describe no image. Raises BrokenTiffError, ParseError, KeyError."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise BrokenTiffError("its OME metadata define entities, which no microscope writes")
    root = ElementTree.fromstring(text)
    if (companion := root.find("{*}BinaryOnly")) is not None:  # only that one says which page is which channel
        where = companion.get("MetadataFile", "another file")
        raise BrokenTiffError(f"its OME metadata lie in {where}; convert it to an OME-TIFF with its own metadata")
    images = [
        (image.get("Name", ""), held)
        for image in root.findall(".//{*}Image")
        if (held := image.find("{*}Pixels")) is not None
    ]
    if not images:
        return None
    own = root.attrib.get("UUID")
    here = [(name, pixels) for name, pixels in images if any(_is_here(one, own) for one in _entries(pixels))]
    first, *others = _positions(here) if here else [images[0][1]]
    axes, shape, pages = _planes(first, found, own)
    for other in others:
        *alike, more = _planes(other, found, own)
        if alike != [axes, shape]:
            raise BrokenTiffError(f"{1 + len(others)} OME images in one file, of unlike numbers of planes; split them")
        pages += more
    if others:
        if len(set(pages)) < len(pages):
            raise BrokenTiffError(f"its OME metadata give one page to several of {1 + len(others)} images")
        axes, shape = f"I{axes}", (1 + len(others), *shape)
    return DataSet(axes, shape, pages, pixel_size.ome(first))


def _positions(images: list[tuple[str, ElementTree.Element]]) -> list[ElementTree.Element]:
    """The first image, by name and pixels, and the others of its form; not what lies beside a slide."""
    found = [images[0][1]]
    for name, pixels in images[1:]:
        if _is_beside(name, pixels, found[0]):
            continue
        if _form(pixels) != _form(found[0]):
            unlike = (
                f"{name or 'a nameless one'} is no label, macro picture or smaller version, nor of the first's size"
            )
            raise BrokenTiffError(f"{len(images)} OME images in one file, and {unlike}; split them")
        found.append(pixels)
    return found


def _form(pixels: ElementTree.Element) -> tuple[object, ...]:
    """What the positions of one stage have in common."""
    return (*(int(pixels.attrib[f"Size{axis}"]) for axis in "XYZCT"), pixel_size.ome(pixels))


def _planes(pixels: ElementTree.Element, found: list[Page], own: str | None) -> tuple[str, tuple[int, ...], list[int]]:
    """The planes of one OME image that lie in this file: axes, without those of length 1, shape, and the numbers of
    the pages, C running fastest. Channels may lie in other files, if the metadata say so."""
    order = pixels.attrib["DimensionOrder"][2:]  # the axis that runs fastest first
    lengths = {axis: int(pixels.attrib[f"Size{axis}"]) for axis in "ZCT"}
    entries = [one for one in _entries(pixels) if _is_here(one, own)]
    begins = int(entries[0].get("IFD", "0")) if entries else 0
    samples = found[begins].samples if 0 <= begins < len(found) else 1
    lengths["C"] = max(1, lengths["C"] // samples)
    promised = math.prod(lengths.values())
    here: dict[tuple[int, ...], int] = {}  # (t, z, c) -> page
    for entry in entries:
        ifd = int(entry.get("IFD", "0"))
        count = int(entry.get("PlaneCount", "1" if "IFD" in entry.attrib else promised))
        if ifd < 0 or count < 0 or ifd + count > len(found):
            raise BrokenTiffError(f"its OME metadata name pages {ifd} to {ifd + count}, the file has {len(found)}")
        at = {axis: int(entry.get(f"First{axis}", "0")) for axis in "ZCT"}
        flat = sum(at[axis] * math.prod(lengths[a] for a in order[:n]) for n, axis in enumerate(order))
        for n in range(count):
            rest, place = flat + n, {}
            for axis in order:
                rest, place[axis] = divmod(rest, lengths[axis])
            here[place["T"], place["Z"], place["C"]] = ifd + n
    times, depths, channels = (sorted({key[n] for key in here}) for n in range(3))
    if len(entries) == len(_entries(pixels)):  # no other file has the rest
        channels = list(range(lengths["C"]))
    if not here or len(here) != len(times) * len(depths) * len(channels):
        raise BrokenTiffError(f"its OME metadata name {promised} planes, {len(here)} of them lie in this file")
    grid = [("T", times), ("Z", depths), ("C", channels)]
    kept = [(axis, values) for axis, values in grid if len(values) > 1]
    indices = [here[key] for key in product(times, depths, channels)]
    return "".join(axis for axis, _ in kept), tuple(len(values) for _, values in kept), indices


def _entries(pixels: ElementTree.Element) -> list[ElementTree.Element]:
    """Which pages hold the planes; without a word all follow each other from the first page on."""
    return pixels.findall("{*}TiffData") or [ElementTree.Element("TiffData")]


def _is_here(entry: ElementTree.Element, own: str | None) -> bool:
    """Whether it means pages of this file: data sets in several files name each."""
    uuid = entry.find("{*}UUID")
    return uuid is None or own is None or (uuid.text or "").strip() == own


BESIDE = re.compile(r"(?<![a-z])(label|macro( mask)?|thumbnail|overview)( image| picture)?[^a-z]*$")
"""How names end that programs give to what lies beside a slide, in small letters: "a.svs [label image]"."""


def _is_beside(name: str, other: ElementTree.Element, slide: ElementTree.Element) -> bool:
    """Whether an OME image is a picture beside the slide by its name, or the slide in larger pixels by their size. Of
    a smaller one that says neither, nobody can tell whether it is a label or another position."""
    if BESIDE.search(re.sub(r"[\s_]+", " ", name.casefold())):
        return True
    size, whole = ((int(pixels.attrib["SizeY"]), int(pixels.attrib["SizeX"])) for pixels in (other, slide))
    step, whole_step = pixel_size.ome(other), pixel_size.ome(slide)
    across = whole[1] / size[1]
    return (
        across > 1
        and is_level(size, whole)
        and all(
            axis in step and axis in whole_step and math.isclose(step[axis] / whole_step[axis], across, rel_tol=0.05)
            for axis in "XY"
        )
    )
