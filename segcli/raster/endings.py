"""What the file of an input is called at its end, and what a file of that kind cannot hold."""

import math
import os
from pathlib import Path

from segcli.errors import InputError
from segcli.raster.contents import EXPECTED, faults_of
from segcli.raster.images import Images
from segcli.raster.names import PICTURES, Name
from segcli.raster.sidecars import has_place
from segcli.raster.sink import Encoding


def suffix(chosen: str, source: Name) -> str:
    """The ending of a mask: pictures give PNG, all else TIFF, which keeps its place on earth, as have pictures where a
    file beside them says it."""
    if chosen != "auto":
        return ".png" if chosen == "png" else ".tif"
    is_picture = isinstance(source, Path) and source.suffix.lower() in PICTURES
    return ".png" if is_picture and not has_place(Path(source)) else ".tif"


def lost_in(path: Name, images: Images, output: Path, encoding: Encoding) -> list[str]:
    """What is lost of an image in its output, was not there to begin with, or is left of an earlier output, in lines
    for people. InputError where it cannot be written."""
    grid, stack, ending = images.planes[0].grid, bool(images.axes), output.suffix
    if ending == ".png" and images.in_pages:
        raise InputError(path, "a stack" if stack else "OME data", "PNG cannot hold it", "choose --format tif")
    said = []
    if images.chunked is not None:
        with faults_of(path, EXPECTED):
            missing = images.chunked.missing()
        if missing:
            said.append(f"{missing} of {math.prod(images.chunked.counts)} chunks are not there, and count as empty")
    if stack and grid.is_georeferenced:
        said.append("a stack of masks cannot hold where it lies on earth")
    if ending == ".png" and grid.is_georeferenced:
        said.append("PNG cannot hold where it lies on earth; --format tif keeps it")
    if ending == ".png" and not grid.is_georeferenced and grid.pixels_per_cm() is not None:
        said.append("PNG cannot hold the size of its pixels; --format tif keeps it")
    if isinstance(path, Path) and path.suffix.lower() in PICTURES and ending == ".tif":
        earlier = output.with_suffix(".png")
        if grid.is_georeferenced and os.path.exists(earlier):  # noqa: PTH110  # Path's raises for names too long
            said.append(f"{earlier} is left as it was; the output is {output.name}, which keeps where it lies on earth")
    if images.in_pages and encoding != Encoding():
        said.append("a stack; --format and --compress do not apply")
    return [f"{path}: {line}" for line in said]
