"""What OME metadata say of a TIFF file: which of its pages make images, of one position or several, and what of them
lies in other files. Pixels are not read here.

Source: the OME-TIFF specification 6 (docs.openmicroscopy.org), TiffData.
"""

import math
import re
from dataclasses import dataclass
from xml.etree import ElementTree

from segcli.raster import pixel_size
from segcli.raster.ifd import BrokenTiffError, Page


@dataclass(frozen=True)
class DataSet:
    """Numbers of the pages that lie in a file, in the order of `axes`, of which C, the channels, runs fastest, and I,
    the positions of a stage, slowest; axes of length 1 are left out. `names` are the positions', `channels` those of
    each one's channels; `calibration` is `Grid`'s."""

    axes: str
    shape: tuple[int, ...]
    pages: list[int]
    names: tuple[str, ...]
    channels: tuple[tuple[str, ...], ...]
    calibration: dict[str, float]


@dataclass(frozen=True)
class _Image:
    """One OME image: what its metadata say, and the entries that mean pages of this file; without a word all follow
    each other from the first page on. `is_here` says that no other file has some of it."""

    name: str
    pixels: ElementTree.Element
    entries: list[ElementTree.Element]
    is_here: bool


def data_set(text: str, found: list[Page]) -> DataSet | None:
    """The planes that lie in this file; its metadata, the XML `text`, may name those of other files, too. None where
    they describe no image. Raises BrokenTiffError, ParseError, KeyError."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise BrokenTiffError("its OME metadata define entities, which no microscope writes")
    root = ElementTree.fromstring(text)
    if (companion := root.find("{*}BinaryOnly")) is not None:  # only that one says which page is which channel
        where = companion.get("MetadataFile", "another file")
        raise BrokenTiffError(f"its OME metadata lie in {where}; convert it to an OME-TIFF with its own metadata")
    own = root.get("UUID", "").casefold()
    images = [
        _image(image.get("Name", ""), pixels, own)
        for image in root.findall(".//{*}Image")
        if (pixels := image.find("{*}Pixels")) is not None
    ]
    if not images:
        return None
    positions = _positions([image for image in images if image.entries] or images[:1])
    first, *others = [_places(image, found) for image in positions]
    if any(other.keys() != first.keys() for other in others):
        raise BrokenTiffError(f"{len(positions)} OME images in one file, not of the same planes each; split them")
    pages = [of_one[place] for of_one in (first, *others) for place in sorted(first)]
    if len(set(pages)) < len(pages):
        raise BrokenTiffError("its OME metadata give one page to several planes")
    lengths = [len(positions), *(len({place[n] for place in first}) for n in range(3))]
    kept = [(axis, length) for axis, length in zip("ITZC", lengths, strict=True) if length > 1]
    shape = tuple(length for _, length in kept)
    names = tuple(image.name for image in positions)
    numbers = sorted({place[2] for place in first})
    channels = tuple(_channels(image.pixels, numbers) for image in positions)
    return DataSet(
        "".join(axis for axis, _ in kept), shape, pages, names, channels, pixel_size.ome(positions[0].pixels)
    )


def _channels(pixels: ElementTree.Element, numbers: list[int]) -> tuple[str, ...]:
    """The names of these channels of an OME image, none where it does not say them of all."""
    names = [channel.get("Name", "") for channel in pixels.findall("{*}Channel")]
    return tuple(names[number] for number in numbers) if numbers[-1] < len(names) else ()


def _image(name: str, pixels: ElementTree.Element, own: str) -> _Image:
    """Data sets in several files name in each entry which one it means, by the `own` UUID that it has."""
    entries = pixels.findall("{*}TiffData") or [ElementTree.Element("TiffData")]
    here = [
        entry
        for entry in entries
        if not own or (uuid := entry.find("{*}UUID")) is None or (uuid.text or "").strip().casefold() == own
    ]
    return _Image(name, pixels, here, len(here) == len(entries))


def _positions(images: list[_Image]) -> list[_Image]:
    """Those of the form of the first one that is not called a label or the like; the others lie beside it."""
    first = next((image for image in images if not _is_called_beside(image)), images[0])
    found = []
    for image in images:
        unlike = _differences(image.pixels, first.pixels)
        if not unlike:
            found.append(image)
        elif not _is_called_beside(image) and not _is_smaller(image.pixels, first.pixels):
            which = f"{image.name or 'a nameless one'} differs from another in {' and '.join(unlike)}"
            raise BrokenTiffError(
                f"{len(images)} OME images in one file, and {which}, and is no label, macro picture or smaller version "
                "of it; split them"
            )
    return found


def _differences(one: ElementTree.Element, other: ElementTree.Element) -> list[str]:
    """In which of what the positions of one stage have in common these two differ, by the names of the attributes."""
    sizes = [f"Size{axis}" for axis in "XYZCT" if int(one.attrib[f"Size{axis}"]) != int(other.attrib[f"Size{axis}"])]
    step, other_step = pixel_size.ome(one), pixel_size.ome(other)
    return sizes + [
        f"PhysicalSize{axis}"
        for axis in "XYZ"
        if not math.isclose(step.get(axis, 0.0), other_step.get(axis, 0.0), rel_tol=1e-3)
    ]


def _places(image: _Image, found: list[Page]) -> dict[tuple[int, int, int], int]:
    """The page of each plane (time, depth, channel) of one OME image that lies in this file: all there are of some
    times and depths, and of all channels but those that lie in other files."""
    pixels = image.pixels
    order = pixels.attrib["DimensionOrder"][2:]  # the axis that runs fastest first
    lengths = {axis: int(pixels.attrib[f"Size{axis}"]) for axis in "ZCT"}
    begins = int(image.entries[0].get("IFD", "0")) if image.entries else 0
    samples = found[begins].samples if 0 <= begins < len(found) else 1
    lengths["C"] = max(1, lengths["C"] // samples)
    promised = math.prod(lengths.values())
    here: dict[tuple[int, int, int], int] = {}
    named = 0
    for entry in image.entries:
        ifd = int(entry.get("IFD", "0"))
        count = int(entry.get("PlaneCount", "1" if "IFD" in entry.attrib else promised))
        if ifd < 0 or count < 0 or ifd + count > len(found):
            raise BrokenTiffError(f"its OME metadata name pages {ifd} to {ifd + count}, the file has {len(found)}")
        at = {axis: int(entry.get(f"First{axis}", "0")) for axis in "ZCT"}
        flat = sum(at[axis] * math.prod(lengths[a] for a in order[:n]) for n, axis in enumerate(order))
        if not all(0 <= at[axis] < lengths[axis] for axis in "ZCT") or flat + count > promised:
            begin = ", ".join(f"{axis} {at[axis]}" for axis in "ZCT")
            raise BrokenTiffError(f"its OME metadata name {count} planes from {begin} on, of {promised} there are")
        named += count
        if named > 2 * promised:  # some name a plane twice; a hundred thousand times all of them take for ever
            raise BrokenTiffError(f"its OME metadata name {promised} planes more than twice")
        for n in range(count):
            rest, place = flat + n, {}
            for axis in order:
                rest, place[axis] = divmod(rest, lengths[axis])
            here[place["T"], place["Z"], place["C"]] = ifd + n
    times, depths, channels = (len({place[n] for place in here}) for n in range(3))
    if image.is_here:
        channels = lengths["C"]
    if not here or len(here) != times * depths * channels:
        raise BrokenTiffError(f"its OME metadata name {promised} planes, {len(here)} of them lie in this file")
    return here


BESIDE = re.compile(r"(?<![a-z])(label|macro( mask)?|thumbnail|overview)( image| picture)?[^a-z]*$")
"""How names end that programs give to what lies beside a slide, in small letters: "a.svs [label image]"."""


def _is_called_beside(image: _Image) -> bool:
    """Whether its name is one of a picture beside a slide."""
    return BESIDE.search(re.sub(r"[\s_]+", " ", image.name.casefold())) is not None


def _is_smaller(other: ElementTree.Element, slide: ElementTree.Element) -> bool:
    """Whether an OME image is the slide in larger pixels by their size. Of a smaller one that does not say it, nobody
    can tell whether it is a label or another position."""
    size, whole = ((int(pixels.attrib["SizeY"]), int(pixels.attrib["SizeX"])) for pixels in (other, slide))
    step, whole_step = pixel_size.ome(other), pixel_size.ome(slide)
    across = whole[1] / size[1]
    return (
        across > 1
        and pixel_size.is_level(size, whole)
        and all(
            axis in step and axis in whole_step and math.isclose(step[axis] / whole_step[axis], across, rel_tol=0.05)
            for axis in "XY"
        )
    )
