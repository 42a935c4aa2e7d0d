"""What the file of an input is called at its end, and what a file of that kind cannot hold."""

from pathlib import Path

from segcli.errors import InputError
from segcli.raster.names import PICTURES, Name
from segcli.raster.sink import Encoding
from segcli.raster.source import Images


def suffix(chosen: str, source: Name) -> str:
    """The ending of a mask: pictures give PNG, all else TIFF, which keeps its place on earth."""
    if chosen != "auto":
        return ".png" if chosen == "png" else ".tif"
    return ".png" if isinstance(source, Path) and source.suffix.lower() in PICTURES else ".tif"


def lost_in(path: Name, images: Images, ending: str, encoding: Encoding) -> list[str]:
    """What is lost of an image in a file of that ending, in lines for people. InputError where it cannot be written."""
    grid, stack = images.planes[0].grid, bool(images.axes)
    if ending == ".png" and images.in_pages:
        raise InputError(path, "a stack" if stack else "OME data", "PNG cannot hold it", "choose --format tif")
    said = []
    if stack and grid.is_georeferenced:
        said.append("a stack of masks cannot hold where it lies on earth")
    if ending == ".png" and grid.is_georeferenced:
        said.append("PNG cannot hold where it lies on earth; --format tif keeps it")
    if ending == ".png" and not grid.is_georeferenced and grid.pixels_per_cm() is not None:
        said.append("PNG cannot hold the size of its pixels; --format tif keeps it")
    if images.in_pages and encoding != Encoding():
        said.append("a stack; --format and --compress do not apply")
    return [f"{path}: {line}" for line in said]
