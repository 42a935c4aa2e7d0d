"""Which pages of a TIFF are images, which are smaller versions of them, and which are neither."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from segcli.errors import InputError
from segcli.raster.images import open_images

CM = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
"""Half a micrometre."""


def shapes(path: Path, **way: Any) -> list[tuple[int, ...]]:
    """(band, row, col) of every image."""
    with closing(open_images(path, **way)) as images:
        return [(plane.bands, plane.grid.height, plane.grid.width) for plane in images.planes]


def picture(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def test_label_and_macro_of_a_slide_are_none_of_its_levels(tmp_path: Path) -> None:
    path, head = tmp_path / "a.svs", "Aperio Image Library v11\r\n"
    common: dict[str, Any] = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        said = f"{head}192x256 [0,0 192x256] (64x64) JPEG/RGB Q=70|AppMag = 20|MPP = 0.5"
        file.write(picture(256, 192), tile=(64, 64), description=said, **common)
        file.write(picture(64, 48), description=f"{head}thumbnail", **common)
        file.write(picture(90, 80), description=f"{head}label 80x90", subfiletype=1, **common)
        file.write(picture(40, 96), description=f"{head}macro 96x40", subfiletype=9, **common)
    with pytest.raises(InputError, match="pyramid levels 0 to 0; no level 1"):
        open_images(path, level=1)
    with pytest.raises(InputError, match=r"levels of 0\.5 micrometres a pixel; none is near 1"):
        open_images(path, mpp=1)
    assert shapes(path, mpp=0.5) == [(3, 256, 192)]


def test_smaller_pages_of_another_shape_are_no_overviews(tmp_path: Path) -> None:
    """GDAL counts them; what is left is counted without gaps, and by its true size."""
    path, common = tmp_path / "a.tif", {"photometric": "rgb", "metadata": None, **CM}
    with tifffile.TiffWriter(path) as file:
        file.write(picture(512, 766), tile=(64, 64), **common)
        file.write(picture(300, 250), subfiletype=1, **common)
        file.write(picture(256, 383), subfiletype=1, tile=(64, 64), **common)
    assert shapes(path, level=1) == shapes(path, mpp=1) == [(3, 256, 383)]
    with pytest.raises(InputError, match="pyramid levels 0 to 1; no level 2"):
        open_images(path, level=2)


def write_ome(path: Path, *images: tuple[int, int, dict[str, Any]]) -> Path:
    """(height, width) and what is said of each."""
    with tifffile.TiffWriter(path, ome=True) as file:
        for height, width, said in images:
            file.write(np.zeros((height, width), np.uint8), metadata={"axes": "YX"} | said)
    return path


def um(size: float) -> dict[str, float]:
    return {"PhysicalSizeX": size, "PhysicalSizeY": size}


@pytest.mark.parametrize(
    "name",
    ["label", "Macro", "macro image", "a.svs [label image]", "a.ndpi - macro mask image", "Thumbnail_1", "overview"],
)
def test_what_lies_beside_a_slide_in_ome_metadata_is_left_out(tmp_path: Path, name: str) -> None:
    path = write_ome(tmp_path / "a.ome.tif", (128, 96, {"Name": "a.svs"}), (130, 40, {"Name": name}))
    assert shapes(path) == [(1, 128, 96)]


def test_the_slide_itself_in_larger_pixels_is_left_out(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "a.ome.tif", (128, 97, um(0.5)), (64, 49, um(1.0)), (32, 25, um(2.0)))
    assert shapes(path) == [(1, 128, 97)]


@pytest.mark.parametrize(
    "more",
    [
        [(100, 100, {"Name": "position 2"}), (64, 64, {"Name": "position 3"})], [(64, 64, {})], [(128, 128, {})],
        [(64, 64, um(0.5))], [(64, 32, um(1.0))], [(64, 64, {"Name": "label-free"})], [(64, 64, {"Name": "unlabel"})],
        [(64, 64, {"Name": "label"}), (64, 64, {"Name": "b"})],
    ],
)  # fmt: skip
def test_other_images_of_ome_metadata_are_never_left_out(
    tmp_path: Path, more: list[tuple[int, int, dict[str, Any]]]
) -> None:
    path = write_ome(tmp_path / "a.ome.tif", (128, 128, {"Name": "position 1"} | um(0.5)), *more)
    with pytest.raises(InputError, match=f"{1 + len(more)} OME images in one file, and .*; split them"):
        open_images(path)


def write_pages(path: Path, *pages: tuple[int, int, bool]) -> Path:
    """(height, width, whether it is tiled) of each."""
    with tifffile.TiffWriter(path) as file:
        for height, width, is_tiled in pages:
            file.write(np.zeros((height, width), np.uint8), tile=(64, 64) if is_tiled else None, metadata=None)
    return path


def test_pages_of_several_shapes_are_images_each(tmp_path: Path) -> None:
    """However they are stored; beside levels of a pyramid they are what slides have."""
    sizes = [(128, 148), (100, 120), (64, 84)]
    expected = [(1, *size) for size in sizes]
    for number, tiled in enumerate(([True] * 3, [False] * 3, [True, False, False], [True, True, False])):
        pages = [(*size, is_tiled) for size, is_tiled in zip(sizes, tiled, strict=True)]
        assert shapes(write_pages(tmp_path / f"{number}.tif", *pages)) == expected
    slide = write_pages(tmp_path / "slide.tif", (256, 300, True), (128, 150, True), (64, 75, True), (90, 40, False))
    assert shapes(slide) == [(1, 256, 300)]
    assert shapes(slide, level=2) == [(1, 64, 75)]
    assert shapes(write_pages(tmp_path / "with_thumbnail.tif", (256, 300, True), (64, 75, False))) == [(1, 256, 300)]


def test_channels_of_several_series_stay_together(tmp_path: Path, rng: np.random.Generator) -> None:
    """As tifffile writes them, and probabilities of images that differ in size."""
    path = tmp_path / "a.tif"
    series = [rng.integers(0, 255, shape, np.uint8) for shape in ((3, 64, 64), (32, 40), (2, 3, 20, 30))]
    with tifffile.TiffWriter(path) as file:
        for pixels, axes in zip(series, ("CYX", "YX", "ZCYX"), strict=True):
            file.write(pixels, photometric="minisblack", metadata={"axes": axes}, **CM)
    expected = [series[0], series[1][None], *series[2]]
    with closing(open_images(path)) as images:
        assert (images.axes, images.shape) == ("I", (4,))
        for plane, pixels in zip(images.planes, expected, strict=True):
            assert np.array_equal(plane.window(0, 0, *pixels.shape[1:]), pixels)
            assert plane.grid.calibration == {"X": 0.5, "Y": 0.5}


def write_one_of_several(path: Path, pixels: str, pages: np.ndarray, own: str = "urn:uuid:a") -> Path:
    """A file of a data set in several, with the OME metadata that all of them have."""
    xmlns = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    said = f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{xmlns}" UUID="{own}">{pixels}</OME>'
    with tifffile.TiffWriter(path) as file:
        for n, page in enumerate(pages):
            file.write(page, description=said if n == 0 else None, photometric="minisblack", metadata=None)
    return path


def ome_image(entries: str, name: str = "", channels: int = 1, depths: int = 1) -> str:
    return (
        f'<Image ID="Image:0" Name="{name}"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="30" '
        f'SizeY="20" SizeZ="{depths}" SizeC="{channels}" SizeT="1">{entries}</Pixels></Image>'
    )


def planes_in(uuid: str, *places: tuple[int, int]) -> str:
    """(channel, depth) of each page of one file of a data set."""
    return "".join(
        f'<TiffData IFD="{n}" FirstC="{channel}" FirstZ="{depth}" PlaneCount="1">'
        f'<UUID FileName="{uuid}.ome.tif">urn:uuid:{uuid}</UUID></TiffData>'
        for n, (channel, depth) in enumerate(places)
    )


def test_a_file_of_one_channel_is_an_image_of_that_one(tmp_path: Path, rng: np.random.Generator) -> None:
    """Its others lie in other files, as the metadata of each say; one that no file has is missing."""
    pages = rng.integers(0, 255, (3, 20, 30), np.uint8)
    here, there = planes_in("a", (1, 0), (1, 1), (1, 2)), planes_in("b", (0, 0), (0, 1), (0, 2))
    path = write_one_of_several(tmp_path / "a.ome.tif", ome_image(there + here, channels=2, depths=3), pages)
    with closing(open_images(path)) as images:
        assert (images.axes, images.shape) == ("Z", (3,))
        for plane, page in zip(images.planes, pages, strict=True):
            assert np.array_equal(plane.window(0, 0, 20, 30), page[None])
    for entries in (here, planes_in("a", (0, 0), (1, 1), (1, 2)) + there):
        path = write_one_of_several(tmp_path / "b.ome.tif", ome_image(entries, channels=2, depths=3), pages)
        with pytest.raises(InputError, match="name 6 planes, 3 of them lie in this file"):
            open_images(path)


def test_positions_that_lie_in_other_files_are_not_asked_for(tmp_path: Path, rng: np.random.Generator) -> None:
    """Of a data set with a file for each position; its metadata name all of them, in each."""
    page = rng.integers(0, 255, (1, 20, 30), np.uint8)
    text = "".join(ome_image(planes_in(uuid, (0, 0)), name=uuid) for uuid in "bac")
    with closing(open_images(write_one_of_several(tmp_path / "a.ome.tif", text, page))) as images:
        assert (images.axes, images.shape) == ("", ())
        assert np.array_equal(images.planes[0].window(0, 0, 20, 30), page)


ONE_PLANE = [f'<TiffData IFD="{n}" PlaneCount="1"/>' for n in range(4)]
TWO_PLANES = [f'<TiffData IFD="{n}" PlaneCount="2"/>' for n in (0, 2)]


def first_values(path: Path) -> tuple[str, tuple[int, ...], list[int]]:
    """Axes, shape, and the value of each image, which is the number of its page."""
    with closing(open_images(path)) as images:
        return images.axes, images.shape, [int(plane.window(0, 0, 1, 1)[0, 0, 0]) for plane in images.planes]


PAGES = np.arange(4, dtype=np.uint8)[:, None, None] + np.zeros((20, 30), np.uint8)


def test_positions_of_one_form_are_a_stack_of_their_planes(tmp_path: Path) -> None:
    """Whatever they are called, and if the time between planes, or the last digit of a pixel's size, differ."""
    text = "".join(ome_image(each, depths=2) for each in TWO_PLANES)
    assert first_values(write_one_of_several(tmp_path / "a.tif", text, PAGES)) == ("IZ", (2, 2), [0, 1, 2, 3])
    names = "p0", "overview", "label", "p3"
    text = "".join(ome_image(each, name) for each, name in zip(ONE_PLANE, names, strict=True))
    assert first_values(write_one_of_several(tmp_path / "a.tif", text, PAGES)) == ("I", (4,), [0, 1, 2, 3])
    said = ('PhysicalSizeX="0.5" TimeIncrement="1.001" SizeT', 'PhysicalSizeX="0.5000001" TimeIncrement="1.002" SizeT')
    text = "".join(
        ome_image(each).replace("SizeT", more).replace('SizeT="1"', 'SizeT="2"')
        for each, more in zip(TWO_PLANES, said, strict=True)
    )
    assert first_values(write_one_of_several(tmp_path / "a.tif", text, PAGES)) == ("IT", (2, 2), [0, 1, 2, 3])


def test_a_label_before_the_slide_is_left_out(tmp_path: Path) -> None:
    label = ome_image(ONE_PLANE[1], "label image").replace('SizeX="30"', 'SizeX="28"')
    text = label + ome_image(ONE_PLANE[0], "slide")
    assert first_values(write_one_of_several(tmp_path / "a.tif", text, PAGES)) == ("", (), [0])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (ome_image(TWO_PLANES[0], depths=2) * 2, "give one page to several planes"),
        (ome_image(ONE_PLANE[0] + ONE_PLANE[0].replace("IFD", 'FirstZ="1" IFD'), depths=2), "one page to several"),
        (ome_image('<TiffData IFD="0" PlaneCount="4"/>', depths=2), "name 4 planes from Z 0, C 0, T 0 on, of 2 there"),
        (ome_image('<TiffData IFD="0" FirstZ="-1" PlaneCount="2"/>', depths=2), "name 2 planes from Z -1, C 0, T 0"),
        (
            ome_image(planes_in("a", (0, 0)) + planes_in("b", (1, 0)), channels=2)
            + ome_image(planes_in("b", (0, 0)) + planes_in("a", (1, 0)).replace('IFD="0"', 'IFD="1"'), channels=2),
            "2 OME images in one file, not of the same planes each; split them",
        ),
        (
            ome_image(TWO_PLANES[0], depths=2) + ome_image(TWO_PLANES[1]).replace('SizeT="1"', 'SizeT="2"'),
            "2 OME images in one file, and a nameless one differs from another in SizeZ and SizeT",
        ),
    ],
)
def test_positions_of_several_forms_and_pages_of_several_planes_are_refused(
    tmp_path: Path, text: str, why: str
) -> None:
    with pytest.raises(InputError, match=why):
        open_images(write_one_of_several(tmp_path / "a.ome.tif", text, PAGES))


def test_the_case_of_a_uuid_is_none_of_its_letters(tmp_path: Path) -> None:
    text = ome_image(planes_in("a", (0, 0), (0, 1)).upper().replace("TIFFDATA", "TiffData")
                     .replace("FIRST", "First").replace("PLANECOUNT", "PlaneCount").replace("FILENAME", "FileName"),
                     depths=2)  # fmt: skip
    assert first_values(write_one_of_several(tmp_path / "a.tif", text, PAGES)) == ("Z", (2,), [0, 1])
