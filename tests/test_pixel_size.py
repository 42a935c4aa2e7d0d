"""How large pixels are, by what programs write."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from segcli.raster.levels import other_size
from segcli.raster.tiffs import structure

PIXELS = np.zeros((20, 30), np.uint8)
FOUR = {"resolution": (4, 4), "resolutionunit": "NONE"}


def calibration(path: Path) -> dict[str, float]:
    found = structure(path)
    assert found is not None
    return found.calibration


def by_imagej(folder: Path, lines: str) -> dict[str, float]:
    """In UTF-8."""
    text = f"ImageJ=1.53c\nimages=1\n{lines}\n".encode()
    tifffile.imwrite(folder / "a.tif", PIXELS, description=text, metadata=None, **FOUR)
    return calibration(folder / "a.tif")


def by_ome(folder: Path, **said: Any) -> dict[str, float]:
    tifffile.imwrite(folder / "a.ome.tif", PIXELS, ome=True, metadata={"axes": "YX"} | said)
    return calibration(folder / "a.ome.tif")


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        ("um", 0.25), ("micron", 0.25), ("microns", 0.25), ("Micron", 0.25), ("micrometres", 0.25), ("\\u00B5m", 0.25),
        ("\N{MICRO SIGN}m", 0.25), ("\N{GREEK SMALL LETTER MU}m", 0.25), ("NM", 2.5e-4), ("mm", 250), ("m", 2.5e5),
        ("\\u00C5", 2.5e-5), ("\N{ANGSTROM SIGN}", 2.5e-5), ("inch", 6350), ("inches", 6350), ("dm", 25000),
        ("Mm", None), ("M", None), ("pixel", None), ("", None),
    ],
)  # fmt: skip
def test_units_are_understood_whoever_writes_them(tmp_path: Path, unit: str, size: float | None) -> None:
    """Capitals mean other units in some symbols: an Mm is 1000 km."""
    expected = {} if size is None else pytest.approx({"X": size, "Y": size})
    assert by_imagej(tmp_path, f"unit={unit}") == expected
    if "\\" not in unit:
        axes = {f"PhysicalSize{axis}": 0.25 for axis in "XY"} | {f"PhysicalSize{axis}Unit": unit for axis in "XY"}
        assert by_ome(tmp_path, **axes) == expected


def test_imagej_has_units_of_its_own_for_other_axes(tmp_path: Path) -> None:
    lines = "unit=um\nyunit=nm\nspacing=-1.5\nfinterval=2\ntunit=min"
    assert by_imagej(tmp_path, lines) == pytest.approx({"X": 0.25, "Y": 2.5e-4, "Z": 1.5, "T": 120})


@pytest.mark.parametrize("size", ["", "0", "nan", "-1", "unknown"])
def test_an_odd_size_is_unknown_and_the_pixels_are_read(tmp_path: Path, size: str) -> None:
    assert by_ome(tmp_path, PhysicalSizeX=size) == {}
    assert by_imagej(tmp_path, f"unit=um\nspacing={size}\nfinterval={size}").keys() == (
        {"X", "Y", "Z"} if size == "-1" else {"X", "Y"}
    )
    assert by_aperio(tmp_path, size) == {}


def test_a_decimal_comma_is_a_point(tmp_path: Path) -> None:
    assert by_aperio(tmp_path, "0,25") == {"X": 0.25, "Y": 0.25}


def by_aperio(folder: Path, size: str, **tags: Any) -> dict[str, float]:
    text = f"Aperio Image Library v11\n256x256 [0,0 256x256] (128x128) JPEG/RGB Q=70|AppMag = 20|MPP = {size}"
    pixels = np.zeros((256, 256, 3), np.uint8)
    path = folder / "a.svs"
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb", metadata=None, description=text, **tags)
    return calibration(path)


@pytest.mark.parametrize(("unit", "size"), [("CENTIMETER", 2500), ("MILLIMETER", 250), ("MICROMETER", 0.25)])
def test_where_metadata_do_not_say_it_resolution_tags_do(tmp_path: Path, unit: str, size: float) -> None:
    tags: dict[str, Any] = {"resolution": (4, 4), "resolutionunit": unit}
    expected = pytest.approx({"X": size, "Y": size})
    assert by_aperio(tmp_path, "", **tags) == expected
    tifffile.imwrite(tmp_path / "a.ome.tif", PIXELS, ome=True, metadata={"axes": "YX", "PhysicalSizeX": ""}, **tags)
    assert calibration(tmp_path / "a.ome.tif") == expected
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, **tags)
    assert calibration(tmp_path / "a.tif") == expected
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, metadata=None, description="ImageJ=1.53c\nimages=1\n", **tags)
    assert calibration(tmp_path / "a.tif") == expected


def test_a_resolution_that_is_no_ratio_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, metadata=None, resolution=(4, 4), resolutionunit="CENTIMETER", byteorder="<")
    ratio, number = (struct.pack("<HHI", 282, kind, 1) for kind in (5, 3))
    path.write_bytes(path.read_bytes().replace(ratio, number))
    assert calibration(path) == {"Y": 2500}


@pytest.mark.parametrize(
    ("pixel_m", "learnt", "said"),
    [
        (0.25e-6, 0.5, "pixels of 0.25 um, and the weights learnt from 0.5 um; --mpp 0.5 looks for these"),
        (10.0, 2e6, "pixels of 10 m, and the weights learnt from 2 m; --mpp 2e+06 looks for these"),
        (0.45e-6, 0.5, ""), (None, 0.5, ""), (0.25e-6, None, ""),
    ],
)  # fmt: skip
def test_pixels_of_another_size_than_was_learnt_from_are_told(
    pixel_m: float | None, learnt: float | None, said: str
) -> None:
    assert list(other_size("a.tif", pixel_m, learnt)) == ([f"a.tif: {said}"] if said else [])
