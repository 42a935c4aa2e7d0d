"""Bands that are asked for by the names that files give them."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import tifffile
from helpers import brightness_model, write_picture
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import ColorInterp

from segcli.band_names import stand_elsewhere
from segcli.classes import ClassTable
from segcli.cli.texts import bands
from segcli.colorize import run as colorize
from segcli.console import Console
from segcli.errors import InputError, NothingDoneError, UsageError
from segcli.network import checkpoint
from segcli.options import ColorizeOptions, PredictOptions, TrainOptions, bands_text
from segcli.predict import run
from segcli.raster.bands import match_bands
from segcli.raster.images import open_images
from segcli.raster.source import Source
from segcli.train import run as train
from segcli.training.findings import warnings
from segcli.training.labels import Labels
from segcli.training.pairs import find_pairs
from segcli.training.survey import survey

Program = Callable[..., subprocess.CompletedProcess[str]]

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
        with pytest.raises(InputError, match="no band is called alpha; it has 3, called blue, green, red; name others"):
            match_bands(image, 3, ("red", "green", "alpha"))
        with pytest.raises(
            InputError, match="band 4 is alpha, or not there; --bands names it, and it has 3, called bl"
        ):
            match_bands(image, 3, (1, 2, 4))
    with Source(write_bands(tmp_path / "b.tif", pixels, ("nir", "", "", ""), kinds)) as image:
        assert image.band_of("nir") == 0
        assert image.band_of("red") is None  # colours of bands that have names are often made up
    with Source(write_bands(tmp_path / "c.tif", pixels[:2])) as image:
        assert [image.band_of(name) for name in ("undefined", "gray", "")] == [None, None, None]
        with pytest.raises(InputError, match="no band is called vh; it has 2, without names; name others, or count"):
            match_bands(image, 1, ("vh",))


def test_what_is_not_there_is_said_with_what_is(tmp_path: Path, weights: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 255, (3, 20, 30), np.uint8)
    scene = write_bands(tmp_path / "a.tif", pixels, ("VV", "VH", "VV"))
    with Source(scene) as image:
        with pytest.raises(
            InputError, match="no band is called HH; it has 3, called VV, VH, VV; name others, or count"
        ):
            match_bands(image, 3, ("VH", "HH", 1))
        with pytest.raises(InputError, match="2 bands called vv; expected one; count them from 1"):
            match_bands(image, 3, ("VH", "vv", 1))
    many = write_bands(tmp_path / "b.tif", np.repeat(pixels, 5, 0), tuple(f"B{n}" for n in range(15)))
    with Source(many) as image, pytest.raises(InputError, match=r"it has 15, called B0, .*, B11 and 3 more; name"):
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
    said = capsys.readouterr().err
    assert "s.tif: 3 bands called nir, green, blue; the weights learnt from bands 'RED,\"A,B\"' of such" in said
    assert "files; choose with --bands what shows the same here" in said
    part = write_bands(tmp_path / "p.tif", pixels[:2], ("red", "green"))  # as many as the network has, one of its own
    assert run(PredictOptions((part,), tmp_path / "m", (str(best),)), QUIET) == 1
    assert run(PredictOptions((part,), tmp_path / "m", (str(best),), bands=("red", 2)), QUIET) == 0

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


NAMES = st.text("abZ 079-,;'\"é.\n", min_size=1).map(str.strip).filter(bool)


@given(st.lists(st.integers(1, 999) | NAMES, min_size=1, max_size=4))
def test_what_is_advised_is_understood(wanted_bands: list[int | str]) -> None:
    assert bands(bands_text(wanted_bands)) == tuple(wanted_bands)


@pytest.mark.parametrize(
    "text", ["", "0", "1,,2", "-1", "+3", "1-3", "1;2", "1,0", ",", " ", '""', '"a', 'a"b', '"a"b', "9" * 5000]
)
def test_texts_that_name_no_bands(text: str) -> None:
    with pytest.raises(UsageError, match="expected numbers from 1 on, such as 4,3,2, or names of bands"):
        bands(text)


def test_pictures_take_colours_by_name(tmp_path: Path, weights: Path, rng: np.random.Generator) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), rng.integers(0, 255, (20, 30, 3), np.uint8))
    with Source(tmp_path / "a.png") as image:
        assert match_bands(image, 3, ("blue", "green", "red")) == (2, 1, 0)


def test_made_up_colours_are_no_names(tmp_path: Path, rng: np.random.Generator) -> None:
    """Three bands of bytes are red, green and blue to GDAL, also where they are called otherwise."""
    pixels = rng.integers(0, 255, (3, 20, 30), np.uint8)
    path = write_bands(
        tmp_path / "a.tif", pixels, ("B2", "B3", "B8"), (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    )
    with Source(path) as image:
        assert image.begins_with_rgb
        assert [image.band_of(name) for name in ("red", "blue", "b8")] == [None, None, 2]
        with pytest.raises(
            InputError, match="3 bands called B2, B3, B8; the weights learnt from bands green,red,blue of"
        ):
            match_bands(image, 3, None, ("green", "red", "blue"))
    path = write_bands(tmp_path / "b.tif", pixels, (), (ColorInterp.red, ColorInterp.green, ColorInterp.blue))
    with Source(path) as image:
        assert match_bands(image, 3, None, ("green", "red", "blue")) == (0, 1, 2)
        assert match_bands(image, 3, ("green", "red", "blue")) == (1, 0, 2)  # who asks knows


def test_weights_that_learnt_by_name_take_no_other_bands(tmp_path: Path, rng: np.random.Generator) -> None:
    """What says what it is, and is something else, is refused; colours that nobody makes up count as names."""
    pixels = rng.integers(0, 255, (4, 20, 30), np.uint8)
    learnt = ("B4", "B3", "B8")
    for count, names in ((3, ("B5", "B6", "B7")), (1, ("B5",)), (4, ("B2", "B3", "B4", "B5"))):
        with Source(write_bands(tmp_path / f"{count}.tif", pixels[:count], names)) as image:
            with pytest.raises(
                InputError, match=f"{count} bands? called {', '.join(names)}; the weights learnt from bands"
            ):
                match_bands(image, 3, None, learnt)
            assert match_bands(image, 3, (1,), learnt) == (0, 0, 0)
    colors = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.nir)
    with Source(write_bands(tmp_path / "a.tif", pixels, kinds=colors)) as image:
        with pytest.raises(
            InputError, match="4 bands called red, green, blue, nir; the weights learnt from bands B4,B3"
        ):
            match_bands(image, 3, None, learnt)
        assert match_bands(image, 3, None, ("nir", "red", "green")) == (3, 0, 1)
    turned = write_bands(tmp_path / "b.tif", pixels[[3, 0, 1, 2]], kinds=(colors[3], *colors[:3]))
    with Source(turned) as image:
        assert match_bands(image, 3, None, ("nir", "red", "green")) == (0, 1, 2)
    undefined = (*colors[:3], ColorInterp.undefined)
    with (
        Source(write_bands(tmp_path / "c.tif", pixels, kinds=undefined)) as image,
        pytest.raises(InputError, match="4 bands"),
    ):
        match_bands(image, 3, None, ("nir", "red", "green"))  # the first three are other ones


def test_what_is_taken_for_granted_is_said(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.save(replace(brightness_model(), learnt=("nir", "red", "green")), tmp_path / "w.safetensors")
    scene = write_bands(tmp_path / "a.tif", rng.integers(0, 255, (3, 20, 30), np.uint8))
    options = PredictOptions((scene,), tmp_path / "m", (str(tmp_path / "w.safetensors"),))
    said = "a.tif: its bands have no names, and are taken for nir,red,green; --bands chooses others"
    for chosen in (None, (1, 2, 3)):
        assert run(replace(options, bands=chosen), Console()) == 0
        assert (said in capsys.readouterr().err) == (chosen is None)
    with pytest.raises(
        UsageError, match=r"--bands: names 2 bands; the weights expect 3 or 1 \(grey\), learnt from nir,red,green"
    ):
        run(replace(options, bands=(1, 2)), QUIET)


def test_training_images_whose_bands_are_in_other_orders_are_said(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 255, (3, 48, 48), np.uint8)
    for n in range(4):
        names = ("nir", "red", "x") if n != 2 else ("red", "nir", "x")
        write_bands(tmp_path / "d" / "images" / f"{n}.tif", pixels, names)
        write_bands(tmp_path / "d" / "masks" / f"{n}.tif", (pixels[:1] > 127).astype(np.uint8))
    for chosen, is_said in ((None, True), ((1, 3), True), (("red", "nir"), False), ((3,), False)):
        splits = find_pairs(tmp_path / "d", 0.5, 0)
        found = survey(splits, Labels(ClassTable.from_indices([0, 1])), print, chosen)
        said = [line for line in warnings(found, ("0", "1")) if "bands" in line]
        assert bool(said) == is_said
        if chosen is None:
            assert re.search(r"has bands .*, .*has .*: --bands .* takes them by name", said[0])


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_levels_of_a_pyramid_have_the_names_of_the_whole(tmp_path: Path, driver: str) -> None:
    """GDAL's overviews have none themselves."""
    pixels = np.stack([np.full((512, 512), 30, np.uint8), np.full((512, 512), 200, np.uint8)])
    path = write_bands(tmp_path / "a.tif", pixels, ("dark", "light"))
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    if driver == "COG":
        rasterio.shutil.copy(path, tmp_path / "c.tif", driver="COG")
        path = tmp_path / "c.tif"
    model = replace(brightness_model(2), learnt=("light", "dark"))
    checkpoint.save(model, tmp_path / "w.safetensors")
    for n, more in enumerate(({"level": 0}, {"level": 1}, {"mpp": 20e6})):
        options = PredictOptions((path,), tmp_path / f"m{n}.tif", (str(tmp_path / "w.safetensors"),), **more)  # type: ignore[arg-type]
        assert run(options, QUIET) == 0
        assert (rasterio.open(options.out).read() == 7).all()


def test_images_whose_bands_are_called_otherwise_are_not_labelled_by_name(
    tmp_path: Path, weights: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two positions of a stage, two pages: the first one's places would be taken for all."""
    pixels = rng.integers(0, 255, (2, 2, 24, 30), np.uint8)
    names = [["DAPI", "GFP"], ["GFP", "DAPI"]]
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        for image, called in zip(pixels, names, strict=True):
            file.write(image, metadata={"axes": "CYX", "Channel": {"Name": called}}, photometric="minisblack")
    images = open_images(tmp_path / "a.ome.tif")
    assert [list(plane.band_names) for plane in images.planes] == names
    images.close()
    assert (
        run(PredictOptions((tmp_path / "a.ome.tif",), tmp_path / "m", (str(weights),), bands=("DAPI",)), Console()) == 1
    )
    said = "images with bands called DAPI, GFP and called GFP, DAPI; expected the same; choose by numbers, or split it"
    assert said in " ".join(capsys.readouterr().err.split())
    assert run(PredictOptions((tmp_path / "a.ome.tif",), tmp_path / "m", (str(weights),), bands=(1,)), QUIET) == 0


def test_training_on_from_weights_keeps_names_and_refuses_other_orders(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Also of a microscope's channels, which are noted by themselves."""
    channels = rng.integers(0, 255, (2, 48, 48), np.uint8)
    for n in range(4):
        for folder, called in (("a", ["red", "nir"]), ("b", ["nir", "red"])):
            path = tmp_path / folder / "images" / f"{n}.ome.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, channels, metadata={"axes": "CYX", "Channel": {"Name": called}})
            write_bands(tmp_path / folder / "masks" / f"{n}.ome.tif", (channels[:1] > 127).astype(np.uint8))
    few = {"width": 2, "depth": 1, "crop": 32, "batch": 2, "epochs": 1, "val": 0.5}
    first = TrainOptions(tmp_path / "a", tmp_path / "one", bands=("red", "nir"), **few)  # type: ignore[arg-type]
    assert train(first, QUIET) == 0
    again = replace(first, weights=tmp_path / "one" / "best.safetensors", bands=None)
    assert train(replace(again, out=tmp_path / "two"), QUIET) == 0
    assert checkpoint.load(tmp_path / "two" / "best.safetensors").learnt == ("red", "nir")
    with pytest.raises(UsageError, match="learnt from bands red,nir of such files; give --bands red,nir"):
        train(replace(again, data=tmp_path / "b", out=tmp_path / "three"), QUIET)
    assert not (tmp_path / "three").exists()


SENTINEL = ("B2", "B3", "B4", "B8")


def trained_on_named(
    tmp_path: Path, rng: np.random.Generator, names: tuple[str, ...] = SENTINEL, **more: object
) -> tuple[Path, np.ndarray]:
    """Weights of a training on three images with bands of these names, and one of these images."""
    for n in range(3):
        pixels = rng.integers(0, 255, (len(names), 40, 50), np.uint8)
        write_bands(tmp_path / "data" / "images" / f"{n}.tif", pixels, names)
        write_bands(tmp_path / "data" / "masks" / f"{n}.tif", (pixels[:1] > 127).astype(np.uint8))
    options = TrainOptions(tmp_path / "data", tmp_path / "run", width=2, depth=1, epochs=1, crop=32, **more)  # type: ignore[arg-type]
    assert train(options, QUIET) == 0
    return tmp_path / "run" / "best.safetensors", pixels


@pytest.mark.parametrize("chosen", [None, (3, 1, 4)])
def test_bands_that_nobody_chose_are_found_by_their_names(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str], chosen: tuple[int, ...] | None
) -> None:
    """A file whose bands stand in another order, or among others, gives the mask of one in the order of training: taken
    as they come they would give another one, and nothing would tell."""
    weights, pixels = trained_on_named(tmp_path, rng, bands=chosen)
    seen = tuple(SENTINEL[n - 1] for n in chosen or (1, 2, 3, 4))
    assert checkpoint.load(weights).called == seen
    turned = write_bands(tmp_path / "turned.tif", pixels[[3, 1, 0, 2]], ("b8", "B3", "B2", "B4"))
    more = np.stack([pixels[3], pixels[0] * 0, *pixels[:3]])
    among = write_bands(tmp_path / "among.tif", more, ("B8", "SCL", "B2", "B3", "B4"))
    masks = tmp_path / "m"
    straight = write_bands(tmp_path / "straight.tif", pixels, SENTINEL)
    assert run(PredictOptions((straight, turned, among), masks, (str(weights),)), Console()) == 0
    expected, *others = (rasterio.open(masks / f"{name}.tif").read() for name in ("straight", "turned", "among"))
    assert 0 < expected.mean() < 1
    assert all(np.array_equal(expected, other) for other in others)
    said = capsys.readouterr().err
    assert said.count("are taken by their names") == 2 + (chosen is not None)
    assert f"turned.tif: bands {', '.join(seen)} are taken by their names" in said
    asked = tuple(range(1, len(seen) + 1))  # who chooses decides
    assert run(PredictOptions((turned,), tmp_path / "asked", (str(weights),), bands=asked), QUIET) == 0
    assert not np.array_equal(rasterio.open(tmp_path / "asked" / "turned.tif").read(), expected)


def test_other_names_are_taken_in_order_with_a_line(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, pixels = trained_on_named(tmp_path, rng)
    for name, called in {
        "same": SENTINEL,
        "other": ("B02", "B03", "B04", "B08"),
        "none": (),
        "twice": ("B2",) * 4,
    }.items():
        write_bands(tmp_path / "in" / f"{name}.tif", pixels, called)
    assert run(PredictOptions((tmp_path / "in",), tmp_path / "m", (str(weights),)), Console()) == 0
    first, *others = (rasterio.open(path).read() for path in sorted((tmp_path / "m").glob("*.tif")))
    assert all(np.array_equal(first, other) for other in others)
    lines = [line for line in capsys.readouterr().err.splitlines() if "--bands chooses others" in line]
    assert lines == [
        f"{tmp_path / 'in' / f'{name}.tif'}: bands called {called} are taken for B2, B3, B4, B8; --bands chooses others"
        for name, called in (("other", "B02, B03, B04, B08"), ("twice", "B2, B2, B2, B2"))
    ]


@pytest.mark.parametrize("names", [("Layer_1", "Layer_2", "Layer_3"), ("Channel:0:0", "Channel:0:1"), ("Band 1",)])
def test_names_that_only_count_are_none(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str], names: tuple[str, ...]
) -> None:
    """They would find the first bands of any file that has more, which was an error, and is."""
    weights, pixels = trained_on_named(tmp_path, rng, names)
    assert checkpoint.load(weights).called == ()
    more = (*names, f"{names[0][:-1]}{len(names) + int(names[0][-1])}")
    write_bands(tmp_path / "more.tif", np.concatenate([pixels, pixels[:1]]), more)
    assert run(PredictOptions((tmp_path / "more.tif",), tmp_path / "m", (str(weights),)), Console()) == 1
    assert f"the weights expect {len(names)}" in capsys.readouterr().err
    sentinel, pixels = trained_on_named(tmp_path / "s", rng, SENTINEL)
    write_bands(tmp_path / "counted.tif", pixels, tuple(f"Layer_{n}" for n in (1, 2, 3, 4)))
    assert run(PredictOptions((tmp_path / "counted.tif",), tmp_path / "m", (str(sentinel),)), Console()) == 0
    assert "--bands" not in capsys.readouterr().err


def test_one_band_among_others_is_told(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, pixels = trained_on_named(tmp_path, rng, ("DAPI",))
    for name, called in {"a": ("GFP", "DAPI"), "b": ("DAPI",), "c": ("GFP",)}.items():
        write_bands(tmp_path / "in" / f"{name}.tif", np.concatenate([*[pixels] * len(called)]), called)
    assert run(PredictOptions((tmp_path / "in",), tmp_path / "m", (str(weights),)), Console()) == 0
    said = [line.partition(".tif: ")[2] for line in capsys.readouterr().err.splitlines() if "taken" in line]
    assert said[0] == "bands DAPI are taken by their names"
    assert said[1:] == ["bands called GFP are taken for DAPI; --bands chooses others"]


def test_weights_of_three_bands_go_on_with_four_named_ones(tmp_path: Path, rng: np.random.Generator) -> None:
    """Red, green, blue and near infrared: the last is left out, and names of four are none for three."""
    checkpoint.save(brightness_model(), tmp_path / "w.safetensors")
    for n in range(3):
        pixels = rng.integers(0, 255, (4, 40, 50), np.uint8)
        path = tmp_path / "data" / "images" / f"{n}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(path, "w", "GTiff", 50, 40, 4, dtype="uint8", photometric="RGB", **PLACE) as file:
            file.write(pixels)
            file.descriptions = ("red", "green", "blue", "nir")
        write_bands(tmp_path / "data" / "masks" / f"{n}.tif", np.where(pixels[:1] > 127, 7, 2).astype(np.uint8))
    (tmp_path / "data" / "classes.csv").write_text("index,name,color\n2,dark,#00005a\n7,light,#fac800\n")
    options = TrainOptions(tmp_path / "data", tmp_path / "run", weights=tmp_path / "w.safetensors", epochs=1, crop=32)
    assert train(options, QUIET) == 0
    assert checkpoint.load(tmp_path / "run" / "best.safetensors").called == ()


def test_names_that_are_not_those_of_all_images_are_none(tmp_path: Path, rng: np.random.Generator) -> None:
    weights, _ = trained_on_named(tmp_path / "a", rng, ("B2", "b2 "))
    assert checkpoint.load(weights).called == ()
    weights, pixels = trained_on_named(tmp_path / "b", rng)
    write_bands(tmp_path / "b" / "data" / "images" / "1.tif", pixels, ("B2", "B3", "B4", "B8A"))
    again = TrainOptions(tmp_path / "b" / "data", tmp_path / "b" / "again", width=2, depth=1, epochs=1, crop=32)
    assert train(again, QUIET) == 0
    assert checkpoint.load(tmp_path / "b" / "again" / "best.safetensors").called == ()


def test_training_on_from_weights_notices_another_order(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, pixels = trained_on_named(tmp_path, rng)
    for n in range(3):
        write_bands(tmp_path / "data" / "images" / f"{n}.tif", pixels[::-1], SENTINEL[::-1])
    again = TrainOptions(tmp_path / "data", tmp_path / "again", weights=weights, epochs=1, crop=32)
    said = "bands B8, B4, B3, B2; the weights learnt from B2, B3, B4, B8, in this order; give --bands B2,B3,B4,B8"
    with pytest.raises(UsageError, match=said):
        train(again, QUIET)
    for n in range(3):
        names = tuple(name.lower() for name in SENTINEL[::-1])
        write_bands(tmp_path / "data" / "images" / f"{n}.tif", pixels[::-1], names)
    with pytest.raises(UsageError, match="bands b8, b4, b3, b2; the weights learnt from B2"):
        train(again, QUIET)
    for n in range(3):
        write_bands(tmp_path / "data" / "images" / f"{n}.tif", pixels[::-1], SENTINEL[::-1])
    assert train(replace(again, bands=SENTINEL), QUIET) == 0
    assert checkpoint.load(tmp_path / "again" / "best.safetensors").called == SENTINEL
    for n in range(3):
        write_bands(tmp_path / "data" / "images" / f"{n}.tif", pixels, ("blue", "green", "red", "nir"))
    capsys.readouterr()
    assert train(replace(again, out=tmp_path / "other"), Console()) == 0
    assert "bands blue, green, red, nir are taken for B2, B3, B4, B8, which the weights" in capsys.readouterr().err


def test_names_in_weights_that_are_none(tmp_path: Path) -> None:
    model = brightness_model()
    for called, said in ((("a", ""), "names of bands"), (("a", "b"), "3 bands, with names for 2")):
        checkpoint.save(replace(model, called=called), tmp_path / "w.safetensors")
        with pytest.raises(NothingDoneError, match=said):
            checkpoint.load(tmp_path / "w.safetensors")
    known = {
        "a": ("a", "b", "c"),
        "b": (),
        "c": ("c", "b", "a"),
        "d": ("A", "B", "C "),
        "e": ("x", "y", "z"),
        "f": ("z", "a", "b"),
    }
    for name, called in known.items():
        checkpoint.save(replace(model, called=called), tmp_path / f"{name}.safetensors")

    def loaded(names: str) -> list[checkpoint.Model]:
        return checkpoint.load_all([tmp_path / f"{name}.safetensors" for name in names])

    assert [loaded(names)[0].called for names in ("ba", "ab", "ad", "ae")] == [("a", "b", "c")] * 4
    for names in ("ac", "bac", "cd", "af", "fe"):
        with pytest.raises(NothingDoneError, match=r"bands .*; expected .*, in this order"):
            loaded(names)


def test_overlays_show_what_the_network_saw(tmp_path: Path, rng: np.random.Generator) -> None:
    """Whether bands were asked for or are known by name; of small files, too, which are closed by then."""
    pixels = rng.integers(0, 255, (5, 40, 50), np.uint8)
    scene = write_bands(tmp_path / "a.tif", pixels, ("blue", "green", "red", "edge", "nir"))
    checkpoint.save(replace(brightness_model(), learnt=("nir", "red", "green")), tmp_path / "w.safetensors")
    pictures = []
    for n, chosen in enumerate((None, (5, 3, 2), ("NIR", "red", 2))):
        options = PredictOptions(
            (scene,), tmp_path / f"m{n}", (str(tmp_path / "w.safetensors"),), bands=chosen, overlay=True
        )
        assert run(options, QUIET) == 0
        pictures.append(rasterio.open(tmp_path / f"m{n}" / "overlays" / "a.tif").read())
    assert np.array_equal(pictures[0], pictures[1]) and np.array_equal(pictures[0], pictures[2])
    tifffile.imwrite(tmp_path / "p.tif", pixels[:3].transpose(1, 2, 0), photometric="rgb", compression="png")
    colors = PredictOptions((tmp_path / "p.tif",), tmp_path / "p", (str(tmp_path / "w.safetensors"),), overlay=True)
    assert run(replace(colors, bands=("blue", "green", "red")), QUIET) == 0


def test_verbose_says_which_bands_were_found(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = write_bands(tmp_path / "a.tif", np.zeros((3, 20, 30), np.uint8), ("nir", "", "red"))
    chosen = PredictOptions((scene,), tmp_path / "m", (str(weights),), bands=("red", 2, "nir"))
    assert run(chosen, Console(verbose=True)) == 0
    assert "a.tif: bands red, 2, nir\n" in capsys.readouterr().err


def test_names_of_digits_and_letters_in_two_forms(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 255, (3, 20, 30), np.uint8)
    with Source(write_bands(tmp_path / "a.tif", pixels, ("443", "Cafe\u0301", "3"))) as image:
        assert match_bands(image, 3, bands('"443","3",CAF\u00c9')) == (0, 2, 1)
        assert match_bands(image, 3, bands("3,2,1")) == (2, 1, 0)


def test_lists_of_names_in_a_config_file(
    tmp_path: Path, weights: Path, rng: np.random.Generator, segcli: Program
) -> None:
    pixels = rng.integers(0, 255, (3, 20, 30), np.uint8)
    write_bands(tmp_path / "a.tif", pixels, ("light, far", 'say "x"', "\u00b5"))
    (tmp_path / "c.toml").write_text('[predict]\nbands = ["light, far", "say \\"x\\"", "\u00b5"]\n', encoding="utf-8")
    assert segcli("predict", "a.tif", "--weights", weights, "--config", "c.toml", "--out", "m").returncode == 0
    assert np.array_equal(rasterio.open(tmp_path / "m" / "a.tif").read()[0] == 7, pixels[0] > 127)
    (tmp_path / "c.toml").write_text('bands = ["3", 2, "1"]\n')
    assert segcli("predict", "a.tif", "--weights", weights, "--config", "c.toml", "--out", "n").returncode == 0
    assert np.array_equal(rasterio.open(tmp_path / "n" / "a.tif").read()[0] == 7, pixels[2] > 127)


def test_tiles_of_one_channel_keep_its_name(tmp_path: Path, rng: np.random.Generator, segcli: Program) -> None:
    pixels = rng.integers(0, 255, (40, 64), np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, metadata={"axes": "YX", "Channel": {"Name": ["DAPI"]}})
    assert segcli("tile", "a.ome.tif", "--size", 32, "--out", "t").returncode == 0
    for path in (tmp_path / "t").glob("*.tif"):
        with Source(path) as image:
            assert image.band_names == ("DAPI",)


@pytest.mark.parametrize("is_folder", [True, False])
def test_true_polygons_lead_to_what_makes_masks_of_them(tmp_path: Path, is_folder: bool, segcli: Program) -> None:
    write_bands(tmp_path / "m" / "a.tif", np.zeros((1, 20, 30), np.uint8))
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.gpkg").write_bytes(b"whatever")
    one, other = ("m", "p") if is_folder else ("m/a.tif", "p/a.gpkg")
    result = segcli("eval", one, other, "--out", "r")
    assert result.returncode in (2, 3)
    assert "make masks of polygons first, by segcli tile --masks or gdal_rasterize" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_pixels_of_metres_are_said_in_metres(tmp_path: Path, weights: Path, segcli: Program) -> None:
    path = write_bands(tmp_path / "a.tif", np.zeros((3, 512, 512), np.uint8))
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2])
    result = segcli("predict", "a.tif", "--weights", weights, "--out", "m", "--mpp", 20)
    assert result.returncode == 1
    assert "choose with --level; --mpp counts micrometres: 20000000 for 20 m" in result.stderr
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((20, 30, 3), np.uint8))
    result = segcli("predict", "b.png", "--weights", weights, "--out", "m", "--mpp", 1)
    assert "the size of its pixels is not stated; --mpp needs it; it has one level, which is taken" in result.stderr


def test_one_band_that_was_learnt_by_name_is_no_picture_of_three(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """The network has it three times, and would be given three others."""
    checkpoint.save(replace(brightness_model(), learnt=("DAPI",)), tmp_path / "w.safetensors")
    write_picture(tmp_path / "three.png", rng.integers(0, 255, (20, 30, 3), np.uint8))
    write_picture(tmp_path / "one.png", rng.integers(0, 255, (20, 30), np.uint8))
    for name, code in (("three", 1), ("one", 0)):
        options = PredictOptions((tmp_path / f"{name}.png",), tmp_path / "m", (str(tmp_path / "w.safetensors"),))
        assert run(options, Console()) == code
        said = capsys.readouterr().err
        assert ("three.png: 3 bands" in said and "the weights learnt from bands DAPI" in said) == (code == 1)


def test_names_in_small_letters_are_the_same_in_weights(tmp_path: Path) -> None:
    for name, learnt in (("a", ("B8", "B4", "B3")), ("b", ("b8", "b4", "b3"))):
        checkpoint.save(replace(brightness_model(), learnt=learnt), tmp_path / f"{name}.safetensors")
    assert len(checkpoint.load_all([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])) == 2


@pytest.mark.parametrize(("names", "others", "is_so"), [
    ("B4 B3 B2", "B8 B4 B3", True), ("B4 B3 B2", "b4 b3 b2", False), ("a b", "x y", False), ("a b", "b a", True),
    ("a a", "a a", False), ("a b", "a c", False), ("", "a b", False),
])  # fmt: skip
def test_bands_that_stand_elsewhere(names: str, others: str, is_so: bool) -> None:
    assert stand_elsewhere(names.split(), others.split()) is is_so
    assert stand_elsewhere(others.split(), names.split()) is is_so
