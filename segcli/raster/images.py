"""All images of one file: most have one, stacks have one for each place along their axes."""

from dataclasses import dataclass

import numpy as np

from segcli.errors import InputError
from segcli.options import Axes
from segcli.raster.contents import open_contents
from segcli.raster.names import Name
from segcli.raster.ngff import Array
from segcli.raster.pages import NAMELESS, regrouped
from segcli.raster.source import Purpose, Source


@dataclass(frozen=True)
class Images:
    """All images of a file, as sources of one path; `axes` and `shape` say how they stack, such as TZ and (7, 5);
    `names` are those of OME's images: of the positions along I, or of the only one. `chunked` is the
    array of a Zarr that is read."""

    planes: tuple[Source, ...]
    axes: str = ""
    shape: tuple[int, ...] = ()
    dialect: str = "tiff"
    names: tuple[str, ...] = ()
    chunked: Array | None = None

    @property
    def in_pages(self) -> bool:
        """Whether outputs are to be written as pages, too: it is a stack, or of a dialect that needs them."""
        return bool(self.axes) or self.dialect == "ome"

    @property
    def are_pages(self) -> bool:
        """Whether it is a stack of which nothing says what its axes are."""
        return len(self.planes) > 1 and set(self.axes) <= NAMELESS and not any(self.names)

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Of the axes, each once: a letter that stands for several of them is numbered, as in Q1 and Q2."""
        axes = self.axes
        return tuple(a if axes.count(a) == 1 else f"{a}{axes[: n + 1].count(a)}" for n, a in enumerate(axes))

    @property
    def volumes(self) -> tuple[int, ...]:
        """The number of each plane's volume: planes that differ in Z alone are of one, taken with one exposure."""
        at_each = [tuple(at for a, at in zip(self.axes, place, strict=True) if a != "Z") for place in self.places]
        numbers = {at: number for number, at in enumerate(dict.fromkeys(at_each))}
        return tuple(numbers[at] for at in at_each)

    @property
    def places(self) -> list[tuple[int, ...]]:
        """Where along the axes each plane is, from 0."""
        return list(np.ndindex(self.shape))

    def close(self) -> None:
        """Close every plane."""
        for plane in self.planes:
            plane.close()


def open_images(
    path: Name, purpose: Purpose = "image", level: int | None = None, mpp: float | None = None, axes: Axes | None = None
) -> Images:
    """Every image of a file: one for most, each T and Z of a stack, whose pages lie along `axes` if any are given.
    Close them. Raises InputError."""
    contents = open_contents(path, level, mpp)
    try:
        contents = regrouped(path, contents, axes)
        planes = []
        for number in range(len(contents.readers)):
            planes.append(Source(path, purpose, contents, number))
            if len(contents.readers) > 1:
                planes[-1].rest()
    except BaseException:
        contents.close()
        raise
    return Images(tuple(planes), contents.axes, contents.shape, contents.dialect, contents.names, contents.chunked)


def open_under(path: Name, wanted: tuple[int, int], axes: Axes | None = None) -> Images:
    """The images that masks of so many rows and columns lie on: those of the file, or of the level of its pyramid that
    is so large. The whole ones where none is. Close them. Raises InputError."""
    whole = open_images(path, axes=axes)
    size = whole.planes[0].grid.height, whole.planes[0].grid.width
    if whole.dialect == "picture":  # of a JPEG GDAL gives smaller versions, of which nobody made masks
        return whole
    level = 1
    while size[0] > wanted[0] and size[1] > wanted[1]:
        try:
            images = open_images(path, "image", level, axes=axes)
        except InputError:  # there is no such level
            break
        size = images.planes[0].grid.height, images.planes[0].grid.width
        if size == wanted:
            whole.close()
            return images
        images.close()
        level += 1
    return whole


def check_alike(path: Name, images: Images, other_path: Name, others: Images) -> None:
    """InputError, about `path`, unless the images of two files belong together one by one."""
    if not stack_alike(images, others):
        remedy = "save the images in one order" if len(images.planes) == len(others.planes) else "expected as many"
        raise InputError(path, stack_text(images), f"{other_path} has {stack_text(others)}", remedy)


def stack_alike(one: Images, other: Images) -> bool:
    """Whether the images of two files belong together one by one: along axes of the same lengths and, if there are
    several, names; or as many where one has mere pages. An axis of one image is none."""
    if len(one.planes) != len(other.planes):
        return False
    first, second = ([(axis, n) for axis, n in zip(images.axes, images.shape, strict=True) if n > 1]
                     for images in (one, other))  # fmt: skip
    if len(first) == len(second) <= 1:  # T of the one may well be Z of the other: programs mix them up
        return True
    if len(first) != len(second):
        return any(len(axes) == 1 and axes[0][0] in NAMELESS for axes in (first, second))
    return all(n == m and (a == b or {a, b} & NAMELESS) for (a, n), (b, m) in zip(first, second, strict=True))


def stack_text(images: Images) -> str:
    """How many images a file has, and how they stack, for messages."""
    if len(images.planes) == 1:
        return "1 image"
    axes = [(n, "" if axis in NAMELESS else f"{axis} ") for axis, n in zip(images.axes, images.shape, strict=True)]
    is_said = len(axes) > 1 or any(name for _, name in axes)
    return f"{len(images.planes)} images" + (f" ({' x '.join(f'{name}{n}' for n, name in axes)})" if is_said else "")
