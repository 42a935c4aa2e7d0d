"""OME-Zarr: images that are folders of chunks. Files are made with the package zarr and attributes as the
specification (ngff.openmicroscopy.org) has them; most is read by GDAL."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import rasterio
import tifffile
import torch
import zarr
from helpers import brightness_model, write_picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ready import Ready
from safetensors.torch import load_file

from segcli import train
from segcli.colorize import run as colorize
from segcli.console import Console
from segcli.errors import InputError, UsageError
from segcli.evaluate import run as evaluate
from segcli.files import size_and_time
from segcli.inputs import find
from segcli.network import checkpoint
from segcli.options import ColorizeOptions, EvalOptions, PredictOptions, TileOptions, TrainOptions
from segcli.predict import run as predict
from segcli.raster import chunks
from segcli.raster.images import Images, open_images
from segcli.raster.names import is_folder, rasters_in
from segcli.raster.origins import origins
from segcli.raster.source import Source
from segcli.tile import run as tile

QUIET = Console(quiet=True)
Program = Callable[..., subprocess.CompletedProcess[str]]
TYPES = {"t": "time", "c": "channel"}
UNITS = {"t": "millisecond", "c": None, "z": "nanometer", "y": "micrometer", "x": "micrometer"}


def write(
    path: Path, levels: np.ndarray | list[np.ndarray], axes: str, format: int = 2, chunk: tuple[int, ...] | None = None,
    codec: Any = "auto", steps: dict[str, float] | None = None, more: dict[str, Any] | None = None, **options: Any,
) -> Path:  # fmt: skip
    """An OME-Zarr of version 0.4 (Zarr format 2) or 0.5 (3)."""
    levels = levels if isinstance(levels, list) else [levels]
    group = zarr.open_group(path, mode="w", zarr_format=format)
    keys = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if format == 2 else {}
    datasets = []
    for n, pixels in enumerate(levels):
        array = group.create_array(
            str(n), shape=pixels.shape, dtype=pixels.dtype, compressors=codec, fill_value=0,
            chunks=chunk or (*(1,) * (pixels.ndim - 2), 16, 32), **(keys | options),
        )  # fmt: skip
        array[...] = pixels
        factors = {"y": levels[0].shape[-2] / pixels.shape[-2], "x": levels[0].shape[-1] / pixels.shape[-1]}
        scale = [(steps or {}).get(axis, 1.0) * factors.get(axis, 1.0) for axis in axes]
        datasets.append({"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    units = {axis: {"unit": UNITS[axis]} if steps and UNITS[axis] else {} for axis in axes}
    described = [{"name": axis, "type": TYPES.get(axis, "space"), **units[axis]} for axis in axes]
    multiscales = {"multiscales": [{"version": "0.4", "axes": described, "datasets": datasets}], **(more or {})}
    group.attrs.update(multiscales if format == 2 else {"ome": {"version": "0.5", **multiscales}})
    return path


def pixels_of(path: Path, **more: Any) -> tuple[Images, np.ndarray]:
    """(plane, band, row, col), read in strips of an odd height."""
    with closing(open_images(path, "image", **more)) as images:
        found = [np.concatenate([strip.pixels for strip in plane.strips(13)], axis=1) for plane in images.planes]
        return images, np.stack(found)


def expected(pixels: np.ndarray, axes: str) -> np.ndarray:
    """The same by numpy alone: channels behind all other axes, in front of rows and columns."""
    pixels = np.moveaxis(pixels, axes.index("c"), -3) if "c" in axes else pixels[..., None, :, :]
    return pixels.reshape(-1, *pixels.shape[-3:])


CODECS = {
    "blosc": (2, numcodecs.Blosc()), "blosc of zstd": (2, numcodecs.Blosc("zstd", shuffle=2)),
    "zstd": (2, numcodecs.Zstd()), "gzip": (2, numcodecs.GZip()), "none": (2, None), "lz4": (2, numcodecs.LZ4()),
    "format 3": (3, "auto"), "format 3, none": (3, None), "format 3, blosc": (3, zarr.codecs.BloscCodec()),
}  # fmt: skip


@pytest.mark.parametrize("codec", CODECS)
def test_pixels_are_those_that_were_written(tmp_path: Path, rng: np.random.Generator, codec: str) -> None:
    """The package zarr writes; GDAL reads what it has a decoder for."""
    written = rng.integers(0, 4000, (2, 3, 4, 40, 70), np.uint16)
    path = write(tmp_path / "a.zarr", written, "tczyx", CODECS[codec][0], codec=CODECS[codec][1])
    images, found = pixels_of(path)
    assert np.array_equal(found, expected(written, "tczyx"))
    assert (images.axes, images.shape, images.dialect) == ("TZ", (2, 4), "ome")
    assert images.planes[0].has_channels
    is_gdals = codec not in ("lz4", "format 3", "format 3, none", "format 3, blosc")
    assert (chunks._why_not_gdal(images.chunked, (0, 0, 0)) is None) == is_gdals


def test_shards_are_read_chunk_by_chunk(tmp_path: Path, rng: np.random.Generator) -> None:
    written = rng.integers(0, 4000, (2, 90, 130), np.uint16)
    path = write(tmp_path / "a.zarr", written, "zyx", 3, (1, 16, 32), shards=(1, 64, 64))
    images, found = pixels_of(path)
    assert np.array_equal(found, written[:, None])
    assert images.planes[0].reader.block == (16, 32)
    assert images.chunked.counts == (2, 2, 3)
    assert images.chunked.missing() == 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_axes_types_and_chunks(tmp_path: Path, data: st.DataObject) -> None:
    """Against numpy, and by GDAL against the package zarr."""
    axes = "".join(axis for axis in "tcz" if data.draw(st.booleans())) + "yx"
    shape = tuple(data.draw(st.integers(1, 3)) for _ in axes[:-2]) + (data.draw(st.integers(1, 40)),) * 2
    chunk = tuple(data.draw(st.integers(1, max(1, length))) for length in shape)
    dtype = data.draw(st.sampled_from(["|u1", "<u2", ">u2", "<i2", "<u4", "|i1", ">i4", "<f2", "<f4", ">f8", "|b1"]))
    options = {"order": data.draw(st.sampled_from("CF")),
               "chunk_key_encoding": {"name": "v2", "separator": data.draw(st.sampled_from("./"))}}  # fmt: skip
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    written = rng.integers(0, 2 if dtype == "|b1" else 120, shape).astype(dtype)
    written[..., -1] = 1  # without any chunk it would be no image
    shutil.rmtree(tmp_path / "a.zarr", ignore_errors=True)
    path = write(tmp_path / "a.zarr", written, axes, chunk=chunk, **options)
    images, found = pixels_of(path)
    assert found.dtype == (np.uint8 if dtype == "|b1" else written.dtype.newbyteorder("="))
    assert np.array_equal(found, expected(written, axes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "_why_not_gdal", lambda *_: "a test")
        other, twin = pixels_of(path)
    assert np.array_equal(twin, found)
    assert twin.dtype == found.dtype
    assert (other.axes, other.shape) == (images.axes, images.shape)


def test_what_the_metadata_say(tmp_path: Path, rng: np.random.Generator) -> None:
    """Sizes of pixels in micrometres and seconds, at each level; the names of channels."""
    whole = rng.integers(0, 4000, (2, 2, 3, 64, 96), np.uint16)
    steps = {"t": 500.0, "z": 2000.0, "y": 0.5, "x": 0.25}
    named = {"omero": {"channels": [{"label": "DAPI"}, {"label": "actin"}]}}
    path = write(tmp_path / "a.zarr", [whole, whole[..., ::2, ::2]], "tczyx", steps=steps, more=named)
    images, _ = pixels_of(path)
    assert images.planes[0].band_names == ("DAPI", "actin")
    assert images.planes[0].grid.calibration == pytest.approx({"T": 0.5, "Z": 2.0, "Y": 0.5, "X": 0.25})
    for more in ({"level": 1}, {"mpp": 0.5}):
        smaller, found = pixels_of(path, **more)
        assert np.array_equal(found, expected(whole[..., ::2, ::2], "tczyx"))
        assert smaller.planes[0].grid.calibration == pytest.approx({"T": 0.5, "Z": 2.0, "Y": 1.0, "X": 0.5})
        assert smaller.planes[0].grid.level_step == (2.0, 2.0)
    with pytest.raises(InputError, match="pyramid levels 0 to 1; no level 2"):
        open_images(path, "image", 2)
    with pytest.raises(InputError, match=r"levels of 0\.25, 0\.5 micrometres a pixel; none is near 4"):
        open_images(path, "image", None, 4.0)


def rewrite(path: Path, change: Any) -> None:
    said = json.loads((path / ".zattrs").read_text())
    change(said["multiscales"][0])
    (path / ".zattrs").write_text(json.dumps(said))


def test_older_versions_say_less_of_axes(tmp_path: Path, rng: np.random.Generator) -> None:
    """0.1 and 0.2 say nothing, 0.3 letters alone; a group's own scale counts beside the array's."""
    written = rng.integers(0, 255, (2, 3, 1, 20, 30), np.uint8)
    path = write(tmp_path / "a.zarr", written, "tczyx")
    for change in (lambda scale: scale.pop("axes"), lambda scale: scale.update(axes=list("tczyx"))):
        rewrite(path, change)
        images, found = pixels_of(path)
        assert np.array_equal(found, expected(written, "tczyx"))
        assert (images.axes, images.shape) == ("T", (2,))
    axes = [{"name": name, "type": kind} for name, kind in
            (("Time", "time"), ("lambda", "channel"), ("pose", "other"), ("y", "space"), ("x", "space"))]  # fmt: skip
    axes[-1]["unit"] = axes[-2]["unit"] = "millimeter"
    scale = [{"type": "scale", "scale": [1, 1, 1, 2, 3]}]
    rewrite(path, lambda said: said.update(axes=axes, coordinateTransformations=scale))
    images, _ = pixels_of(path)
    assert images.planes[0].grid.calibration == {"Y": 2000.0, "X": 3000.0}
    assert (images.axes, images.planes[0].bands) == ("T", 3)


def collection(folder: Path, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A plate of two wells, of one with two fields; a file of two series, one of a single one, as bioformats2raw
    writes them; and one image."""
    groups = {"plate.zarr/A/1": ["0", "1"], "plate.zarr/B/12": ["0"], "series.zarr": ["0", "1"], "one.zarr": ["0"]}
    written = {f"{group}/{name}": rng.integers(0, 255, (3, 20, 30), np.uint8)
               for group, names in groups.items() for name in names}  # fmt: skip
    written["image.OME.ZARR"] = rng.integers(0, 255, (3, 20, 30), np.uint8)
    for name in ("plate.zarr", "plate.zarr/A", "plate.zarr/B", *groups, "series.zarr/OME", "one.zarr/OME"):
        zarr.open_group(folder / name, mode="a", zarr_format=2)
    for name, pixels in written.items():
        write(folder / name, pixels, "cyx")
    zarr.open_group(folder / "plate.zarr").attrs["plate"] = {"wells": [{"path": "A/1"}, {"path": "B/12"}]}
    for name, fields in (("plate.zarr/A/1", "01"), ("plate.zarr/B/12", "0")):
        zarr.open_group(folder / name).attrs["well"] = {"images": [{"path": field} for field in fields]}
    for name in ("series.zarr", "one.zarr"):
        zarr.open_group(folder / name).attrs["bioformats2raw.layout"] = 3
    labels = zarr.open_group(folder / "image.OME.ZARR" / "labels", mode="a", zarr_format=2)
    labels.attrs["labels"] = ["cells"]
    write(folder / "image.OME.ZARR" / "labels" / "cells", np.zeros((20, 30), np.uint8), "yx")
    return written


@pytest.mark.parametrize("recursive", [False, True])
def test_a_folder_gives_the_images_of_its_zarrs(tmp_path: Path, rng: np.random.Generator, recursive: bool) -> None:
    """Fields of plates and series of files each; no labels, no arrays, no Zarr of others."""
    written = collection(tmp_path / "scans", rng)
    write_picture(tmp_path / "scans" / "a.png", np.zeros((20, 30), np.uint8))
    zarr.open_group(tmp_path / "scans" / "climate.zarr", mode="w", zarr_format=2).create_array(
        "rain", data=np.zeros((3, 40, 50), np.float32)
    )
    names = [name if name != "one.zarr/0" else "one.zarr" for name in written] + ["a.png"]
    assert rasters_in(tmp_path / "scans", recursive) == sorted(tmp_path / "scans" / name for name in names)
    found = find([tmp_path / "scans" / "plate.zarr"], tmp_path / "out", recursive)
    assert [path.as_posix() for path in found.values()] == ["A/1/0", "A/1/1", "B/12/0"]
    assert not rasters_in(tmp_path / "scans" / "image.OME.ZARR", recursive)
    assert [is_folder(tmp_path / "scans" / name) for name in ("plate.zarr", "series.zarr", "one.zarr")] == [1, 1, 0]
    for name, pixels in written.items():
        assert np.array_equal(pixels_of(tmp_path / "scans" / name)[1], pixels[None])
    assert np.array_equal(pixels_of(tmp_path / "scans" / "one.zarr")[1], written["one.zarr/0"][None])
    for name, inside in (("plate.zarr", "3 images; expected one; name one, such as .*/A/1/0"), ("series.zarr", "2 im")):
        with pytest.raises(InputError, match=f"{name}: an OME-Zarr of {inside}"):
            open_images(tmp_path / "scans" / name)


def test_predict_labels_them_as_their_tiff_twins(tmp_path: Path, segcli: Program, rng: np.random.Generator) -> None:
    """As OME-TIFF, with the same axes and sizes of pixels; a damaged one is named, and the others are done."""
    checkpoint.save(brightness_model(), tmp_path / "w.safetensors")
    stack = rng.integers(0, 255, (2, 3, 2, 40, 60), np.uint8)  # tczyx
    steps = {"t": 500.0, "z": 2000.0, "y": 0.5, "x": 0.25}
    write(tmp_path / "scans" / "film.ome.zarr", stack, "tczyx", steps=steps)
    write(tmp_path / "scans" / "newer.zarr", stack, "tczyx", 3, steps=steps)
    write(tmp_path / "scans" / "broken.zarr", stack, "tczyx")
    for band in range(3):
        damaged = tmp_path.joinpath("scans", "broken.zarr", "0", "1", str(band), "1", "0", "0")
        damaged.write_bytes(damaged.read_bytes()[:20])
    tifffile.imwrite(
        tmp_path / "twin.ome.tif", stack.swapaxes(1, 2), ome=True, photometric="minisblack",
        metadata={"axes": "TZCYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0,
                  "TimeIncrement": 0.5},
    )  # fmt: skip
    weights = ("--weights", tmp_path / "w.safetensors")
    done = segcli("predict", tmp_path / "scans", tmp_path / "twin.ome.tif", "--out", tmp_path / "masks", *weights)
    assert done.returncode == 1
    assert "done 3  up to date 0  failed 1" in done.stderr
    assert "broken.zarr/0/1/0/1/0/0 failed; expected a whole file; fetch or export it again" in done.stderr
    pixels, said = [], []
    for name in ("film.ome", "newer", "twin.ome"):
        with tifffile.TiffFile(tmp_path / "masks" / f"{name}.tif") as file:
            assert file.series[0].axes == "TZYX"
            pixels.append(file.asarray())
            said.append(tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"])
    assert np.array_equal(pixels[0], np.where(stack[:, 0] > 127, 7, 2))
    assert np.array_equal(pixels[0], pixels[1])
    assert np.array_equal(pixels[0], pixels[2])
    for name in ("PhysicalSizeX", "PhysicalSizeY", "PhysicalSizeZ", "TimeIncrement"):
        assert len({one[name] for one in said}) == 1
    assert not (tmp_path / "masks" / "broken.tif").exists()
    again = segcli("predict", tmp_path / "scans", tmp_path / "twin.ome.tif", "--out", tmp_path / "masks", *weights)
    assert "done 0  up to date 3  failed 1" in again.stderr
    changed = tmp_path / "scans" / "newer.zarr"
    write(changed, 255 - stack, "tczyx", 3, steps=steps)
    again = segcli("predict", changed, "--out", tmp_path / "masks", *weights)
    assert "done 1  up to date 0  failed 0" in again.stderr


def test_chunks_that_are_not_there_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Zarr has them as zeros, which may be a copy that was cut off. Without any an image is none, labels may be."""
    checkpoint.save(brightness_model(), tmp_path / "w.safetensors")
    for format in (2, 3):
        path = write(tmp_path / f"a{format}.zarr", np.full((3, 40, 60), 200, np.uint8), "cyx", format)
        array = path / "0" if format == 2 else path / "0" / "c"
        (array / "1" / "2" / "1").unlink()
        options = PredictOptions((path,), tmp_path / "masks", (str(tmp_path / "w.safetensors"),))
        assert predict(options, Console()) == 0
        assert f"a{format}.zarr: 1 of 18 chunks are not there, and count as empty\n" in capsys.readouterr().err
        for child in ("0", "1", "2"):
            shutil.rmtree(array / child)
        if format == 3:
            array.rmdir()
        assert predict(options, Console()) == 1
        assert f"a{format}.zarr: none of its chunks is there" in capsys.readouterr().err
        with closing(open_images(path, "mask")) as labels:
            assert not labels.planes[0].window(0, 0, 40, 60).any()


def test_a_chunk_that_cannot_be_opened_is_no_empty_one(tmp_path: Path) -> None:
    """GDAL takes one of somebody else's for one that was never written."""
    path = write(tmp_path / "a.zarr", np.full((3, 40, 60), 200, np.uint8), "cyx")
    chunk = path / "0" / "1" / "0" / "0"
    chunk.unlink()
    chunk.symlink_to(chunk)  # which not even root can open
    with pytest.raises(InputError, match=r"a\.zarr: Too many levels of symbolic links"):
        pixels_of(path)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_tiles_of_one_channel_keep_its_name_and_the_size_of_its_pixels(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """As those of the same image as OME-TIFF do; and none lies in a Zarr."""
    path = write(tmp_path / "a.zarr", rng.integers(1, 255, (1, 64, 64), np.uint8), "cyx", steps={"y": 0.5, "x": 0.5},
                 more={"omero": {"channels": [{"label": "DAPI"}]}})  # fmt: skip
    assert tile(TileOptions((path,), tmp_path / "tiles", size=32), QUIET) == 0
    assert tile(TileOptions((tmp_path / "tiles",), tmp_path / "a.tif", join=True), QUIET) == 0
    for made in (*(tmp_path / "tiles").glob("*.tif"), tmp_path / "a.tif"):
        with rasterio.open(made) as file, closing(open_images(made, "image")) as images:
            assert file.descriptions == ("DAPI",)
            assert images.planes[0].grid.calibration == pytest.approx({"X": 0.5, "Y": 0.5})
    assert len(list((tmp_path / "tiles").glob("*.tif"))) == 4
    (tmp_path / "plate.zarr").mkdir()
    (tmp_path / "plate.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    field = write(tmp_path / "plate.zarr" / "0", rng.integers(1, 255, (64, 64), np.uint8), "yx")
    with pytest.raises(UsageError, match="a Zarr; expected a folder for the outputs"):
        tile(TileOptions((field,), None, size=32), QUIET)


def test_what_cannot_be_right_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 255, (2, 3, 20, 30), np.uint8)
    for n, (change, message) in enumerate((
        (lambda said: said["datasets"][0].update(path="../b.zarr/0"), "its metadata name ../b.zarr/0, which is not in"),
        (lambda said: said["datasets"][0].update(path="/etc"), "its metadata name /etc, which is not in it"),
        (lambda said: said["datasets"][0].update(path="9"), "its metadata name an array 9, which is not there"),
        (lambda said: said["axes"].pop(), "3 axes (zcy) for an array of 4"),
        (lambda said: said["axes"].reverse(), "its axes are xycz; expected y and x last, and each once"),
        (lambda said: said["axes"][0].update(name="x"), "its axes are xcyx; expected y and x last, and each once"),
        (lambda said: said.pop("datasets"), "its metadata are not as OME-Zarr has them: KeyError 'datasets'"),
        (lambda said: said.update(datasets=[]), "its metadata are not as OME-Zarr has them: IndexError"),
    )):  # fmt: skip
        path = write(tmp_path / f"{n}.zarr", pixels, "zcyx")
        rewrite(path, change)
        with pytest.raises(InputError) as error:
            open_images(path)
        assert message in str(error.value), n
    path = write(tmp_path / "up.zarr", [pixels[..., ::2, ::2], pixels], "zcyx")
    with pytest.raises(InputError, match="do not run from the largest to the smallest"):
        open_images(path)
    for name, text, message in (
        (".zattrs", "{", "Expecting property name"),
        (".zattrs", '{"multiscales": 3}', "its metadata are not as OME-Zarr has them: TypeError"),
        (".zattrs", '{"multiscales": [{}, {}]}', "2 multiscale images in one group"),
        ("0/.zarray", '{"dtype": "<U4", "shape": [2, 3, 20, 30], "chunks": [1, 1, 9, 9]}', "<U4 of 2 x 3 x 20 x 30"),
        ("0/.zarray", '{"dtype": "|u1", "shape": [2, 3, 20, -1], "chunks": [1, 1, 9, 9]}', "in chunks of 1 x 1 x 9"),
        ("0/.zarray", '{"dtype": "|u1", "shape": [999, 999, 20, 30], "chunks": [1, 1, 9, 9]}', "which are more than"),
        ("0/.zarray", '{"dtype": "|u1"}', "its metadata are not as OME-Zarr has them: KeyError"),
    ):  # fmt: skip
        path = write(tmp_path / "b.zarr", pixels, "zcyx")
        (path / name).write_text(text)
        with pytest.raises(InputError) as error:
            open_images(path)
        assert message in str(error.value), text
        assert path in rasters_in(tmp_path)  # a folder of many must not pass it over
    path = write(tmp_path / "b.zarr", pixels, "zcyx")
    said = json.loads((path / "0" / ".zarray").read_text())
    (path / "0" / ".zarray").write_text(json.dumps(said | {"shape": [2, 3, 20, 999_999_999]}))
    with pytest.raises(InputError, match="its header claims rows of 999999999 pixels"):
        open_images(path)
    smaller = [pixels, pixels[:1, :, ::2, ::2]]
    with pytest.raises(InputError, match="its array 1 is uint8 of 1 x 3 x 10 x 15, and 0 uint8 of 2 x 3 x 20 x 30"):
        open_images(write(tmp_path / "b.zarr", smaller, "zcyx"))


def test_what_is_missing_for_format_3_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.zarr", np.zeros((3, 20, 30), np.uint8) + 1, "cyx", 3)
    remedy = r"its pixels need the package zarr; pip install 'segcli\[zarr\]'"
    packed = write(tmp_path / "c.zarr", np.zeros((20, 30), np.uint8) + 1, "yx", codec=numcodecs.LZ4())
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(InputError, match=rf"a\.zarr: Zarr format 3; {remedy}"):
        open_images(path)
    with pytest.raises(InputError, match=rf"c\.zarr: .*lz4.*; {remedy}"):
        open_images(packed)
    images, _ = pixels_of(write_before(tmp_path / "b.zarr"))
    assert images.planes[0].bands == 1


def write_before(path: Path) -> Path:
    """By hand: an image of one chunk that is not compressed."""
    (path / "0").mkdir(parents=True)
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    (path / ".zattrs").write_text('{"multiscales": [{"axes": ["y", "x"], "datasets": [{"path": "0"}]}]}')
    array = {"zarr_format": 2, "shape": [4, 6], "chunks": [4, 6], "dtype": "|u1", "compressor": None, "filters": None,
             "order": "C", "fill_value": 0}  # fmt: skip
    (path / "0" / ".zarray").write_text(json.dumps(array))
    (path / "0" / "0.0").write_bytes(bytes(range(24)))
    return path


def test_threads_may_read_one_image(tmp_path: Path, rng: np.random.Generator) -> None:
    for format in (2, 3):
        written = rng.integers(0, 4000, (8, 64, 96), np.uint16)
        path = write(tmp_path / f"{format}.zarr", written, "zyx", format, (4, 16, 32))
        with closing(open_images(path)) as images:
            wrong: list[int] = []

            def look(n: int, written: np.ndarray = written, images: Images = images, wrong: list[int] = wrong) -> None:
                for _ in range(5):
                    if not np.array_equal(images.planes[n].window(3, 5, 60, 80)[0], written[n, 3:63, 5:85]):
                        wrong.append(n)

            threads = [threading.Thread(target=look, args=(n,)) for n in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not wrong


def test_train_eval_colorize_and_tile_take_them(tmp_path: Path, rng: np.random.Generator) -> None:
    """Each as the same of TIFFs, to the last bit."""
    for n in range(4):
        mask = np.kron(rng.integers(0, 2, (5, 6), np.uint8), np.ones((8, 8), np.uint8))
        image = (mask * 120 + rng.integers(0, 60, mask.shape)).astype(np.uint8)
        write(tmp_path / "zarrs" / "images" / f"{n}.zarr", image, "yx", 2 + n % 2)
        write(tmp_path / "zarrs" / "masks" / f"{n}.ome.zarr", mask, "yx", 2 + n % 2)
        for kind, pixels in (("images", image), ("masks", mask)):
            (tmp_path / "tiffs" / kind).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(tmp_path / "tiffs" / kind / f"{n}.tif", pixels, metadata=None)
    weights = []
    for kind in ("zarrs", "tiffs"):
        options = TrainOptions(tmp_path / kind, tmp_path / f"of_{kind}", width=2, depth=1, epochs=2, crop=32, batch=2)
        assert train.run(options, QUIET) == 0
        weights.append(load_file(tmp_path / f"of_{kind}" / "best.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    reports = []
    for kind, name in (("zarrs", "0.zarr"), ("tiffs", "0.tif")):
        masks, images = tmp_path / f"masks_of_{kind}", tmp_path / kind / "images"
        assert predict(PredictOptions((images,), masks, (str(tmp_path / "of_tiffs" / "best.safetensors"),)), QUIET) == 0
        assert evaluate(EvalOptions(masks, tmp_path / kind / "masks", tmp_path / f"report_{kind}"), QUIET) == 0
        reports.append(json.loads((tmp_path / f"report_{kind}" / "report.json").read_text()))
        mask = tmp_path / kind / "masks" / name.replace(".zarr", ".ome.zarr")
        alone = EvalOptions(mask, mask, tmp_path / f"alone_{kind}")
        assert evaluate(alone, QUIET) == 0
        over = ColorizeOptions((masks / "0.tif",), tmp_path / f"colors_{kind}", over=images / name)
        assert colorize(over, QUIET) == 0
        cut = TileOptions((images / name,), tmp_path / f"tiles_{kind}", size=16, masks=mask, format="tif")
        assert tile(cut, QUIET) == 0
    assert reports[0]["confusion_matrix"] == reports[1]["confusion_matrix"]
    pictures = [tifffile.imread(tmp_path / f"colors_{kind}" / "0.tif") for kind in ("zarrs", "tiffs")]
    assert np.array_equal(*pictures)
    tiles = [{path.name: tifffile.imread(path) for path in sorted((tmp_path / f"tiles_{kind}").glob("*/*.tif"))}
             for kind in ("zarrs", "tiffs")]  # fmt: skip
    assert tiles[0].keys() == tiles[1].keys()
    assert tiles[0]
    assert all(np.array_equal(tiles[0][name], tiles[1][name]) for name in tiles[1])


def test_images_are_found_wherever_a_zarr_has_them(tmp_path: Path, rng: np.random.Generator) -> None:
    """In groups of any Zarr, as SpatialData has them, and in folders of any name, --recursive; labels are none."""
    pixels = rng.integers(0, 255, (3, 20, 30), np.uint8)
    for store in ("data.zarr", "data"):
        for name in ("", "images", "labels"):
            zarr.open_group(tmp_path / store / name, mode="a", zarr_format=3)
        write(tmp_path / store / "images" / "he", pixels, "cyx", 3)
        write(tmp_path / store / "labels" / "cells", pixels[:1], "cyx", 3)
    write(tmp_path / "scan", pixels, "cyx")
    write(tmp_path / "scan" / "labels" / "cells", pixels[0], "yx")
    (tmp_path / "scan" / ".zgroup").unlink()  # which nobody needs
    assert rasters_in(tmp_path) == [tmp_path / "data.zarr" / "images" / "he"]
    found = [tmp_path / "data" / "images" / "he", tmp_path / "data.zarr" / "images" / "he", tmp_path / "scan"]
    assert rasters_in(tmp_path, recursive=True) == found
    assert list(find([tmp_path / "data.zarr"], tmp_path / "out", False).values()) == [Path("images/he")]


def test_what_is_lost_of_a_plate_is_named(tmp_path: Path, segcli: Program, rng: np.random.Generator) -> None:
    """Fields are those that the metadata list, whatever folders are there; and masks do not get into it."""
    written = collection(tmp_path, rng)
    for row in "AB":
        (tmp_path / "plate.zarr" / row / ".zgroup").unlink()
        (tmp_path / "plate.zarr" / row / ".zattrs").unlink(missing_ok=True)
    shutil.rmtree(tmp_path / "plate.zarr" / "B")
    for name in (".zattrs", ".zgroup"):
        (tmp_path / "plate.zarr" / "A" / "1" / "1" / name).unlink()
    checkpoint.save(brightness_model(), tmp_path / "w.safetensors")
    done = segcli("predict", tmp_path / "plate.zarr", "--out", tmp_path / "out", "-w", tmp_path / "w.safetensors")
    assert done.returncode == 1
    assert "done 1  up to date 0  failed 2" in done.stderr
    assert "B/12: no such file or folder" in done.stderr
    assert "plate.zarr/A/1/1: " in done.stderr
    with tifffile.TiffFile(tmp_path / "out" / "A" / "1" / "0.tif") as file:
        assert np.array_equal(file.asarray(), np.where(written["plate.zarr/A/1/0"][0] > 127, 7, 2))
    for inside in ("", "masks"):
        into = segcli("predict", tmp_path / "one.zarr", "--out", tmp_path / "plate.zarr" / inside)
        assert into.returncode == 2
        assert "plate.zarr, a Zarr; expected a folder for the outputs; choose another --out" in into.stderr
    both = find([tmp_path], tmp_path / "out", False)
    assert both[tmp_path / "plate.zarr" / "A" / "1" / "0"] == Path("plate/A/1/0")


def test_a_zarr_without_its_own_metadata_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "scans" / "a.ome.zarr", np.full((3, 20, 30), 200, np.uint8), "cyx")
    (path / ".zgroup").unlink()
    assert rasters_in(tmp_path / "scans") == [path]
    assert pixels_of(path)[1].max() == 200
    (path / ".zattrs").unlink()
    assert rasters_in(tmp_path / "scans") == [path]
    with pytest.raises(InputError, match=r"a\.ome\.zarr: its own metadata \(\.zattrs and \.zgroup, or zarr\.json\) "):
        open_images(path)
    assert not is_folder(path)


@pytest.mark.parametrize("change", [lambda said: said.pop("dimension_separator"),
                                    lambda said: said.update(shape=[1, 16, 32])])  # fmt: skip
def test_chunks_of_other_names_are_none(tmp_path: Path, change: Any) -> None:
    """Whatever lies among them: a file of macOS, or chunks named as another separator would have it."""
    path = write(tmp_path / "a.zarr", np.full((3, 40, 60), 200, np.uint8), "cyx")
    (path / "0" / ".DS_Store").touch()
    (path / "0" / "1" / "9").mkdir()
    with closing(open_images(path)) as images:
        assert images.chunked.missing() == 0
        (path / "0" / "1" / "1" / "0").unlink()
        assert images.chunked.missing() == 1
    said = json.loads((path / "0" / ".zarray").read_text())
    change(said)
    (path / "0" / ".zarray").write_text(json.dumps(said))
    if "dimension_separator" in said:
        with closing(open_images(path)) as images:
            assert images.chunked.missing() == 0  # of one
        return
    with pytest.raises(InputError, match=r"a\.zarr: none of its chunks is there"):
        open_images(path)


@pytest.mark.parametrize("separator", [".", "/"])
def test_names_of_chunks_in_format_3(tmp_path: Path, separator: str) -> None:
    for n, name in enumerate(("default", "v2")):
        path = write(tmp_path / f"{n}.zarr", np.full((3, 40, 60), 200, np.uint8), "cyx", 3,
                     chunk_key_encoding={"name": name, "separator": separator})  # fmt: skip
        images, found = pixels_of(path)
        assert (found == 200).all()
        array = images.chunked
        assert array.missing() == 0
        assert array.file((1, 2, 1)).is_file()
        array.file((1, 2, 1)).unlink()
        assert array.missing() == 1
        for file in array.path.rglob("*"):
            if file.is_file() and file.name != "zarr.json":
                file.unlink()
        assert array.is_empty()


def test_axes_of_one_kind_are_told_apart(tmp_path: Path, rng: np.random.Generator) -> None:
    written = rng.integers(1, 255, (3, 2, 4, 20, 30), np.uint8)
    path = write(tmp_path / "a.zarr", written, "tczyx")
    axes = [{"name": name} for name in ("pose", "c", "angle", "y", "x")]
    rewrite(path, lambda said: said.update(axes=axes))
    images, found = pixels_of(path)
    assert (images.axes, images.shape) == ("QQ", (3, 4))
    assert np.array_equal(found, expected(written, "tczyx"))
    checkpoint.save(brightness_model(2), tmp_path / "w.safetensors")
    options = PredictOptions((path,), tmp_path / "masks", (str(tmp_path / "w.safetensors"),), probabilities=True)
    assert predict(options, QUIET) == 0
    assert np.array_equal(tifffile.imread(tmp_path / "masks" / "a.tif"), np.where(written[:, 0] > 127, 7, 2))
    assert tifffile.imread(tmp_path / "masks" / "probabilities" / "a.tif").shape == (3, 4, 2, 20, 30)
    rewrite(path, lambda said: said.update(axes=list("zctyx")))
    assert predict(options, QUIET) == 0
    with tifffile.TiffFile(tmp_path / "masks" / "a.tif") as file:
        assert (file.is_ome, file.series[0].axes) == (True, "ZTYX")
        assert np.array_equal(file.asarray(), np.where(written[:, 0] > 127, 7, 2))


def test_axes_are_not_made_up_for_newer_versions(tmp_path: Path, rng: np.random.Generator) -> None:
    path = write(tmp_path / "a.zarr", rng.integers(1, 255, (2, 4, 3, 20, 30), np.uint8), "tzcyx", 3)
    said = json.loads((path / "zarr.json").read_text())
    said["attributes"]["ome"]["multiscales"][0].pop("axes")
    (path / "zarr.json").write_text(json.dumps(said))
    with pytest.raises(InputError, match="its metadata do not say what its axes are; versions of OME-Zarr"):
        open_images(path)


def test_a_name_with_colons_is_a_name(tmp_path: Path) -> None:
    """The package zarr would take it, as text, for a chain of file systems."""
    write(tmp_path / "a", np.full((20, 30), 9, np.uint8), "yx", 3)
    path = write(tmp_path / "a::b.zarr", np.full((20, 30), 200, np.uint8), "yx", 3)
    assert (pixels_of(path)[1] == 200).all()


def test_chunks_that_no_memory_holds_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", np.full((20, 30), 9, np.uint8), "yx", 3)
    said = json.loads((path / "0" / "zarr.json").read_text())
    said["chunk_grid"]["configuration"]["chunk_shape"] = [60_000, 60_000]
    (path / "0" / "zarr.json").write_text(json.dumps(said))
    with pytest.raises(InputError, match=r"chunks of 60000 x 60000, 3\.6 GB each, .*; expected at most 1 GB"):
        open_images(path)


def test_what_counts_as_a_change(tmp_path: Path, segcli: Program) -> None:
    """Chunks behind a link do, labels that come beside the image do not."""
    checkpoint.save(brightness_model(), tmp_path / "w.safetensors")
    path = write(tmp_path / "a.zarr", np.full((3, 20, 30), 200, np.uint8), "cyx")
    (path / "0").rename(tmp_path / "store")
    (path / "0").symlink_to(tmp_path / "store")
    command = ("predict", path, "--out", tmp_path / "out", "--weights", tmp_path / "w.safetensors")
    assert "done 1 " in segcli(*command).stderr
    write(path / "labels" / "cells", np.zeros((20, 30), np.uint8), "yx")
    assert "up to date 1 " in segcli(*command).stderr
    other = write(tmp_path / "b.zarr", np.full((3, 20, 30), 100, np.uint8), "cyx")
    shutil.copytree(other / "0", tmp_path / "store", dirs_exist_ok=True)
    assert "done 1 " in segcli(*command).stderr
    assert (tifffile.imread(tmp_path / "out" / "a.tif") == 2).all()


def test_attributes_of_arrays_are_their_owners(tmp_path: Path, rng: np.random.Generator) -> None:
    """One array, as GDAL reads it, with attributes of any kind."""
    pixels = rng.integers(0, 255, (20, 30), np.uint8)
    array = zarr.create_array(tmp_path / "a.zarr", data=pixels, zarr_format=2)
    assert array.shape == (20, 30)
    for text in ("[]", '{"a": 1,}', "{}"):
        (tmp_path / "a.zarr" / ".zattrs").write_text(text)
        assert np.array_equal(pixels_of(tmp_path / "a.zarr")[1][0, 0], pixels)
        assert not rasters_in(tmp_path)


def test_odd_sizes_and_names_do_no_harm(tmp_path: Path, rng: np.random.Generator) -> None:
    more = {"omero": {"channels": [{"label": None}, {"label": "actin"}, {}]}}
    path = write(tmp_path / "a.zarr", rng.integers(0, 255, (3, 20, 30), np.uint8), "cyx", steps={"y": 2.0}, more=more)
    rewrite(path, lambda said: said["datasets"][0].update(
        coordinateTransformations=[{"type": "scale", "scale": [1, "2", 3.0]}, {"type": "scale", "scale": None}]
    ))  # fmt: skip
    images, _ = pixels_of(path)
    assert images.planes[0].grid.calibration == {"X": 3.0}
    assert images.planes[0].band_names == ("", "actin", "")


def test_a_zarr_is_named_by_its_folder_from_inside(tmp_path: Path, ready: Ready, rng: np.random.Generator) -> None:
    write(tmp_path / "a.zarr", rng.integers(0, 255, (3, 20, 30), np.uint8), "cyx")
    checkpoint.save(brightness_model(), tmp_path / "w.safetensors")
    done = ready.run(["predict", ".", "--out", "../out", "-w", "../w.safetensors"], tmp_path / "a.zarr", {})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "a.tif").is_file()


def test_what_cannot_be_compared_is_told(tmp_path: Path, rng: np.random.Generator) -> None:
    stack = write(tmp_path / "a.zarr", rng.integers(0, 2, (3, 20, 30), np.uint8), "zyx")
    (tmp_path / "masks").mkdir()
    with pytest.raises(UsageError, match="a file beside a folder"):
        evaluate(EvalOptions(tmp_path / "masks", stack, tmp_path / "report"), QUIET)
    assert tile(TileOptions((stack,), tmp_path / "tiles"), Console(quiet=True)) == 1
    with pytest.raises(InputError, match=r"a stack of 3 images; expected one image; save them as files of their own$"):
        Source(stack)


@pytest.mark.parametrize("is_listed", [True, False])
def test_series_that_are_lost_are_named(
    tmp_path: Path, segcli: Program, rng: np.random.Generator, is_listed: bool
) -> None:
    """As bioformats2raw lists them; without a list those of which anything is there."""
    path = tmp_path / "scans" / "a.zarr"
    for n in range(12):
        write(path / str(n), rng.integers(0, 255, (3, 20, 30), np.uint8), "cyx")
    zarr.open_group(path, mode="a", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    if is_listed:
        (path / "OME").mkdir()
        (path / "OME" / ".zattrs").write_text(json.dumps({"series": [str(n) for n in range(12)]}))
    shutil.rmtree(path / "5")
    for name in (".zattrs", ".zgroup"):
        (path / "8" / name).unlink()
    numbers = [n for n in range(12) if is_listed or n != 5]
    assert rasters_in(tmp_path / "scans") == sorted(path / str(n) for n in numbers)
    checkpoint.save(brightness_model(), tmp_path / "w.safetensors")
    done = segcli("predict", tmp_path / "scans", "--out", tmp_path / "out", "-w", tmp_path / "w.safetensors")
    assert done.returncode == 1
    assert f"done 10  up to date 0  failed {len(numbers) - 10}" in done.stderr
    assert (tmp_path / "out" / "a" / "11.tif").is_file()


def test_one_series_is_one_where_it_alone_is_listed(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "a.zarr"
    write(path / "0", rng.integers(0, 255, (3, 20, 30), np.uint8), "cyx")
    zarr.open_group(path, mode="a", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    assert not is_folder(path)
    (path / "OME").mkdir()
    (path / "OME" / ".zattrs").write_text(json.dumps({"series": ["0", "1"]}))
    assert is_folder(path)
    assert rasters_in(path) == [path / "0", path / "1"]
    for odd in ([0], 5, [None], ["../0"]):
        (path / "OME" / ".zattrs").write_text(json.dumps({"series": odd}))
        assert origins(path) == (path,)
        assert rasters_in(tmp_path) == [path]
        with pytest.raises(InputError, match=r"a\.zarr: "):
            open_images(path)
    (path / "OME" / ".zattrs").write_text(json.dumps({"series": ["0"]}))
    (path / "0" / ".zattrs").unlink()
    with pytest.raises(InputError, match="its metadata are not as OME-Zarr has them: KeyError 'multiscales'"):
        open_images(path)


def test_links_that_lead_back_do_no_harm(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in ("", "images"):
        zarr.open_group(tmp_path / "data.zarr" / name, mode="a", zarr_format=2)
    he = write(tmp_path / "data.zarr" / "images" / "he", rng.integers(0, 255, (3, 20, 30), np.uint8), "cyx")
    (tmp_path / "data.zarr" / "again").symlink_to(".")
    assert rasters_in(tmp_path) == rasters_in(tmp_path / "data.zarr") == [he]
    assert is_folder(tmp_path / "data.zarr")


def test_no_verb_writes_into_a_zarr(tmp_path: Path, rng: np.random.Generator) -> None:
    """Nor into one that has lost its metadata."""
    inside = write(tmp_path / "a.zarr", rng.integers(0, 255, (3, 20, 30), np.uint8), "cyx") / "new"
    picture = write_picture(tmp_path / "masks" / "p.png", rng.integers(0, 2, (20, 30), np.uint8))
    for kind in ("images", "masks"):
        for n in range(2):
            write_picture(tmp_path / "data" / kind / f"{n}.png", rng.integers(0, 2, (20, 30), np.uint8))
    (tmp_path / "torn.zarr" / "0").mkdir(parents=True)
    assert tile(TileOptions((picture,), tmp_path / "tiles", size=16), QUIET) == 0
    for out in (inside, tmp_path / "torn.zarr" / "new"):
        before = sorted(tmp_path.rglob("*"))
        for run in (
            lambda out=out: predict(PredictOptions((picture,), out), QUIET),
            lambda out=out: colorize(ColorizeOptions((picture,), out), QUIET),
            lambda out=out: tile(TileOptions((picture,), out, size=16), QUIET),
            lambda out=out: tile(TileOptions((tmp_path / "tiles",), out, join=True), QUIET),
            lambda out=out: evaluate(EvalOptions(picture, picture, out), QUIET),
            lambda out=out: train.run(TrainOptions(tmp_path / "data", out, epochs=1), QUIET),
        ):
            with pytest.raises(UsageError, match=r"lies in .*\.zarr, a Zarr; expected a folder for the outputs"):
                run()
        assert sorted(tmp_path.rglob("*")) == before


def test_chunks_that_change_places_are_a_change(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", np.arange(3 * 40 * 60).reshape(3, 40, 60).astype(np.uint16), "cyx", codec=None)
    before = size_and_time(path)
    chunks_of = path / "0" / "0" / "0"
    (chunks_of / "0").rename(chunks_of / "x")
    (chunks_of / "1").rename(chunks_of / "0")
    (chunks_of / "x").rename(chunks_of / "1")
    after = size_and_time(path)
    assert after is not None
    assert before is not None
    assert (after[0], after[1] == before[1]) == (before[0], False)
    (path / "0" / ".DS_Store").touch()
    assert size_and_time(path) == after
    (chunks_of / "0").rename(chunks_of / "00")
    with closing(open_images(path)) as images:
        assert images.chunked.missing() == 1


def test_torn_plates_are_named(tmp_path: Path, rng: np.random.Generator) -> None:
    collection(tmp_path, rng)
    plate = tmp_path / "plate.zarr"
    for folder in ("", "A", "B"):
        for name in (".zgroup", ".zattrs"):
            (plate / folder / name).unlink(missing_ok=True)
    (tmp_path / "empty.zarr").mkdir()
    found = rasters_in(tmp_path)
    assert plate in found
    assert tmp_path / "empty.zarr" in found
