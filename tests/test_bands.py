"""Bands that are asked for by the names that files give them."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import ColorInterp

from segcli.cli.texts import bands
from segcli.colorize import run as colorize
from segcli.console import Console
from segcli.errors import InputError, NothingDoneError, UsageError
from segcli.network import checkpoint
from segcli.options import ColorizeOptions, PredictOptions, TrainOptions
from segcli.predict import run
from segcli.raster.fit import _written, match_bands
from segcli.raster.images import open_images
from segcli.raster.source import Source
from segcli.train import run as train
from tests.helpers import brightness_model

QUIET = Console(quiet=True)
PLACE = {"transform": rasterio.Affine(10, 0, 0, 0, -10, 0), "crs": "EPSG:32640"}


def write_bands(
    path: Path, pixels: np.ndarray, names: tuple[str, ...] = (), kinds: tuple[ColorInterp, ...] = ()
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", "GTiff", width, height, count, dtype=pixels.dtype, photometric="MINISBLACK", **PLACE
    ) as file:
        if kinds:
            file.colorinterp = kinds
        file.write(pixels)
        for n, name in enumerate(names, start=1):
            file.set_band_description(n, name)
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    checkpoint.save(brightness_model(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_names_choose_what_numbers_do_wherever_the_file_has_them(
    tmp_path: Path, weights: Path, rng: np.random.Generator
) -> None:
    """The mask and the picture under it; in small letters or large ones."""
    pixels = rng.integers(0, 255, (4, 40, 50), np.uint8)
    names = ("Red", "Green", "B8 near infrared", "Blue")
    scene = write_bands(tmp_path / "a" / "a.tif", pixels, names)
    other = write_bands(tmp_path / "b" / "a.tif", pixels[[2, 3, 0, 1]], tuple(names[n] for n in (2, 3, 0, 1)))
    masks, overlays = [], []
    for n, chosen in enumerate(((3, 1, 2), ("b8 NEAR infrared", "red", 2))):
        out = tmp_path / f"m{n}"
        assert run(PredictOptions((scene,), out, (str(weights),), bands=chosen, overlay=True), QUIET) == 0
        masks.append(rasterio.open(out / "a.tif").read())
        overlays.append(rasterio.open(out / "overlays" / "a.tif").read())
    named = PredictOptions((other,), tmp_path / "m", (str(weights),), bands=("B8 near infrared", "Red", "Green"))
    assert run(named, QUIET) == 0
    masks.append(rasterio.open(tmp_path / "m" / "a.tif").read())
    assert np.array_equal(masks[0], masks[1]) and np.array_equal(masks[0], masks[2])
    assert np.array_equal(overlays[0], overlays[1])
    assert np.array_equal(masks[0][0] == 7, pixels[2] > 127)


def test_colours_are_names_where_the_file_has_no_others(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 255, (4, 20, 30), np.uint8)
    kinds = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.alpha)
    with Source(write_bands(tmp_path / "a.tif", pixels, kinds=kinds)) as image:
        assert match_bands(image, 3, ("red", "green", "Blue")) == (2, 1, 0)
        with pytest.raises(InputError, match="no band is called alpha; its 3 have no names"):
            match_bands(image, 3, ("red", "green", "alpha"))
    with Source(write_bands(tmp_path / "b.tif", pixels, ("green", "x", "", ""), kinds)) as image:
        assert image.band_of("green") == 0  # what the file says comes first
        assert image.band_of("red") == 2


def test_what_is_not_there_is_said_with_what_is(tmp_path: Path, weights: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 255, (3, 20, 30), np.uint8)
    scene = write_bands(tmp_path / "a.tif", pixels, ("VV", "VH", "VV"))
    with Source(scene) as image:
        with pytest.raises(InputError, match="no band is called HH; its bands are VV, VH, VV; name others, or count"):
            match_bands(image, 3, ("VH", "HH", 1))
        with pytest.raises(InputError, match="2 bands called vv; expected one; name it by its number"):
            match_bands(image, 3, ("VH", "vv", 1))
    many = write_bands(tmp_path / "b.tif", np.repeat(pixels, 5, 0), tuple(f"B{n}" for n in range(15)))
    with Source(many) as image, pytest.raises(InputError, match=r"its bands are B0, .*, B11 and 3 more; name"):
        match_bands(image, 1, ("B99",))
    mask = tmp_path / "masks" / "a.tif"
    write_bands(mask, (pixels[:1] > 99).astype(np.uint8))
    over = ColorizeOptions((mask,), tmp_path / "c", over=scene, bands=("VV", "VH", "x"))
    assert colorize(over, QUIET) == 1
    assert run(PredictOptions((scene,), tmp_path / "m", (str(weights),), bands=("VH", "x", 1)), QUIET) == 1


def test_a_palette_has_no_names(tmp_path: Path) -> None:
    with rasterio.open(tmp_path / "a.tif", "w", "GTiff", 20, 20, 1, dtype="uint8", **PLACE) as file:
        file.write_colormap(1, {n: (n, 0, 255 - n, 255) for n in range(256)})
        file.set_band_description(1, "kinds")
    with Source(tmp_path / "a.tif") as image:
        assert (image.bands, image.band_of(3), image.band_of(4)) == (3, 2, None)
        assert image.band_of("kinds") is None
    with Source(tmp_path / "a.tif", "mask") as mask:
        assert mask.bands == 1


@pytest.mark.parametrize("axes", ["CYX", "TCYX", "TZCYX"])
def test_channels_of_every_image_of_a_stack_have_names(
    tmp_path: Path, weights: Path, rng: np.random.Generator, axes: str
) -> None:
    shape = tuple({"Z": 2, "T": 3, "C": 3, "Y": 24, "X": 30}[axis] for axis in axes)
    pixels = rng.integers(0, 255, shape, np.uint8)
    names = {"Channel": {"Name": ["DAPI", "GFP, bright", "TRITC"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, metadata={"axes": axes, **names}, photometric="minisblack")
    images = open_images(tmp_path / "a.ome.tif")
    assert {plane.band_names for plane in images.planes} == {("DAPI", "GFP, bright", "TRITC")}
    images.close()
    found = []
    for n, chosen in enumerate(((2,), bands('"gfp, bright"'))):
        one = PredictOptions((tmp_path / "a.ome.tif",), tmp_path / f"m{n}", (str(weights),), bands=chosen, overlay=True)
        assert run(one, QUIET) == 0
        found.append(tifffile.imread(tmp_path / f"m{n}" / "a.ome.tif"))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0] == 7, np.take(pixels, 1, axes.index("C")) > 127)


def test_a_file_of_some_channels_of_a_set_has_their_names(tmp_path: Path, rng: np.random.Generator) -> None:
    """Of a data set in several files, each of which has metadata of all."""
    pixels = rng.integers(0, 255, (3, 24, 30), np.uint8)
    own, other = "urn:uuid:00000000-0000-0000-0000-00000000000a", "urn:uuid:00000000-0000-0000-0000-00000000000b"
    entries = "".join(
        f'<TiffData IFD="{ifd}" FirstC="{c}" PlaneCount="1"><UUID FileName="x">{uuid}</UUID></TiffData>'
        for c, (ifd, uuid) in enumerate(((0, other), (0, own), (1, own)))
    )
    channels = "".join(f'<Channel ID="Channel:0:{c}" Name="{name}"/>' for c, name in enumerate("ABC"))
    text = (
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{own}"><Image ID="Image:0"><Pixels '
        'ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="30" SizeY="24" SizeC="3" SizeZ="1" SizeT="1">'
        f"{channels}{entries}</Pixels></Image></OME>"
    )
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for n, plane in enumerate(pixels[1:]):
            file.write(plane, description=text if n == 0 else None, metadata=None, photometric="minisblack")
    with Source(tmp_path / "a.ome.tif") as image:
        assert image.band_names == ("B", "C")
        assert (image.band_of("c"), image.band_of("A")) == (1, None)


def test_weights_that_learnt_by_name_find_their_bands(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """In files of any order; of files without the names they take as many bands as they know, as they are."""
    names = ("nir", "a,b", "red")
    for n in range(4):
        pixels = rng.integers(0, 255, (3, 48, 48), np.uint8)
        write_bands(tmp_path / "all" / "images" / f"{n}.tif", pixels, names)
        write_bands(tmp_path / "cut" / "images" / f"{n}.tif", pixels[[2, 1]])
        for folder in ("all", "cut"):
            write_bands(tmp_path / folder / "masks" / f"{n}.tif", (pixels[2:] > 127).astype(np.uint8))
    options = TrainOptions(tmp_path / "all", tmp_path / "run", width=2, depth=1, crop=32, batch=2, epochs=2, val=0.5)
    options = replace(options, bands=bands('RED,"A,B"'))
    assert train(options, QUIET) == 0
    assert train(replace(options, data=tmp_path / "cut", out=tmp_path / "cut_run", bands=None), QUIET) == 0
    best = tmp_path / "run" / "best.safetensors"
    one, other = (checkpoint.load(path) for path in (best, tmp_path / "cut_run" / "best.safetensors"))
    assert (one.learnt, one.normalisation) == (("RED", "A,B"), other.normalisation)

    scenes = (
        write_bands(tmp_path / "x.tif", pixels, names),
        write_bands(tmp_path / "y.tif", pixels[[1, 2]], ("A,B", "Red")),  # as many as the network has
        write_bands(tmp_path / "z.tif", pixels[[2, 1]]),
    )
    assert run(PredictOptions(scenes, tmp_path / "m", (str(best),)), QUIET) == 0
    found = [rasterio.open(tmp_path / "m" / path.name).read() for path in scenes]
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    strange = write_bands(tmp_path / "s.tif", pixels, ("nir", "green", "blue"))
    capsys.readouterr()
    assert run(PredictOptions((strange,), tmp_path / "m", (str(best),)), Console()) == 1
    assert "s.tif: 3 bands; the weights expect 2; choose with --bands" in capsys.readouterr().err

    again = replace(options, weights=best, out=tmp_path / "c", epochs=1, bands=None)
    with pytest.raises(UsageError, match="give --bands 'RED,\"A,B\"', or") as error:
        train(again, QUIET)
    assert bands(re.findall("--bands '(.*?)'", str(error.value))[0]) == ("RED", "A,B")
    assert train(replace(again, bands=bands('RED,"A,B"')), QUIET) == 0


@pytest.mark.parametrize("damage", [["red", ""], ["red", 0], ["red", None], "red", [True], []])
def test_bands_of_weights_that_are_none(tmp_path: Path, damage: object) -> None:
    model = replace(brightness_model(), learnt=damage)  # type: ignore[arg-type]
    checkpoint.save(model, tmp_path / "w.safetensors")
    with pytest.raises(NothingDoneError, match="bands"):
        checkpoint.load(tmp_path / "w.safetensors")


@given(st.lists(st.integers(1, 99) | st.text("abZ 0-,'\"é.", min_size=1).map(str.strip), min_size=1, max_size=4))
def test_what_is_advised_is_understood(given_bands: list[int | str]) -> None:
    wanted = tuple(band for band in given_bands if isinstance(band, int) or re.search("[abZé]", band))
    if wanted:
        (text,) = shlex.split(_written(wanted))
        assert bands(text) == wanted


@pytest.mark.parametrize("text", ["", "0", "1,,2", "-1", "+0", "1,0", ",", " "])
def test_texts_that_name_no_bands(text: str) -> None:
    with pytest.raises(UsageError, match="expected numbers from 1 on, such as 4,3,2, or names of bands"):
        bands(text)


def test_pictures_take_colours_by_name(tmp_path: Path, weights: Path, rng: np.random.Generator) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), rng.integers(0, 255, (20, 30, 3), np.uint8))
    with Source(tmp_path / "a.png") as image:
        assert match_bands(image, 3, ("blue", "green", "red")) == (2, 1, 0)
