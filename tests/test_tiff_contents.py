"""Which pages of a TIFF are images, which are smaller versions of them, and which are neither."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from segcli.errors import InputError
from segcli.raster.source import open_images

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
