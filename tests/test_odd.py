"""All awkward files of the collection: read right, or refused in one line. Each in a process of its own, with 4 GB and
20 seconds of a processor, ten times as many by the clock, because that is what some of them are about."""

import hashlib
import json
import multiprocessing
import resource
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from helpers import SHARED
from rasterio.enums import ColorInterp

from segcli.errors import InputError, NothingDoneError, one_line
from segcli.network.checkpoint import load
from segcli.raster.images import Images, open_images
from segcli.raster.source import Source
from segcli.raster.upright import upright

ODD = SHARED / "odd"
pytestmark = pytest.mark.skipif(not ODD.exists(), reason="the collection of odd files is not beside the checkout")
EXPECTED: dict[str, Any] = json.loads((ODD / "expected.json").read_text()) if ODD.exists() else {"good": {}, "bad": {}}
MEMORY, SECONDS = 4 << 30, 20

LEFT_TO_OTHERS = {
    "good/plain/frames.gif": "GIF",
    "good/plain/mixed-disposal.gif": "GIF",
}
"""Good files that are refused by design, and the word in the line that says so."""


def guarded(work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` gives, or the error it raises, from a process with bounds."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def run() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY + _address_space(), MEMORY + _address_space()))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        signal.alarm(10 * SECONDS)
        try:
            answer: Any = work(*arguments)
        except BaseException as error:
            answer = error
        there.send(answer)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside torch's threads, which do not run here
        process = context.Process(target=run)
        process.start()
    there.close()
    try:
        answer = here.recv()
    except EOFError:
        process.join()
        pytest.fail(f"ended with {process.exitcode} (a negative number is the signal; 24 and 14 are of too much time)")
    process.join()
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _address_space() -> int:
    """What the parent has mapped already (torch is large)."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def read(name: str | Path, window: list[int] | None, purpose: str) -> dict[str, Any]:
    """What segcli makes of a file."""
    images: Images = open_images(name, purpose)  # type: ignore[arg-type]
    planes, masks = [], []
    for plane in images.planes:
        if window is not None:
            col, row, width, height = window
            planes.append(plane.window(row, col, height, width))
            continue
        strips = list(plane.strips(7))
        planes.append(np.concatenate([strip.pixels for strip in strips], axis=1))
        masks.append(sum(s.pixels[0].size if s.valid is None else int(s.valid.sum()) for s in strips))
        assert planes[-1].shape[1:] == (plane.grid.height, plane.grid.width)
    grid = images.planes[0].grid
    found = {"planes": planes, "valid": masks, "axes": images.axes, "shape": images.shape}
    found |= {"crs": grid.crs, "transform": grid.transform, "gcps": len(grid.gcps), "rpcs": grid.rpcs is not None}
    for plane in images.planes:
        plane.close()
    return found


def name_of(relative: str, entry: dict[str, Any]) -> str | Path:
    path = ODD / relative
    return entry["open"].format(path=path) if "open" in entry and not relative.endswith(".zip") else path


def digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<")).tobytes()).hexdigest()


@pytest.mark.parametrize("relative", EXPECTED["good"])
def test_good_files_are_read_right(relative: str) -> None:
    entry = EXPECTED["good"][relative]
    if word := LEFT_TO_OTHERS.get(relative):
        with pytest.raises(InputError, match=word):
            guarded(read, name_of(relative, entry), None, "image")
        return
    if relative.endswith(("two_rasters.zip", "two-subs.h5")):
        with pytest.raises(InputError, match="name one"):
            guarded(read, ODD / relative, None, "image")
        if relative.endswith(".zip"):
            return
    name, window = name_of(relative, entry), entry.get("window")
    try:
        mask, image = guarded(lambda: [read(name, window, purpose) for purpose in ("mask", "image")])
    except InputError as error:
        if entry.get("optional"):  # the codec is missing
            assert "imagecodecs" in str(error)
            return
        raise
    check_pixels(relative, entry, mask, image)
    check_place(entry, mask)


def check_pixels(relative: str, entry: dict[str, Any], mask: dict[str, Any], image: dict[str, Any]) -> None:
    """Against the array that was written where it is known, else against the reader that is right."""
    expected = reference(ODD / relative, entry)
    if relative.endswith("tiff_with_subifds.tif"):  # two pages, of which rasterio shows the first
        assert (mask["axes"], mask["shape"]) == ("I", (2,))
        mask["planes"], mask["valid"] = mask["planes"][:1], mask["valid"][:1]
    assert len(mask["planes"]) == len(expected)
    for found, wanted in zip(mask["planes"], expected, strict=True):
        assert found.shape == wanted.shape
        if entry.get("lossy"):
            tolerance = entry.get("tol", 1.5)
            assert np.abs(found.astype(float).mean((1, 2)) - wanted.astype(float).mean((1, 2))).max() <= tolerance
        else:
            np.testing.assert_array_equal(found, wanted.astype(found.dtype))
            np.testing.assert_array_equal(found.astype(wanted.dtype), wanted)
    if "valid_finite" in entry and len(expected) == 1 and "window" not in entry:
        assert mask["valid"] == [entry["valid_finite"]]
    if "upright" in entry and "sha256" in entry["upright"]:
        assert digest(mask["planes"][0]) == entry["upright"]["sha256"]
    if "as_picture" in entry and entry.get("orientation", 1) == 1:
        picture = image["planes"][0]
        if entry["as_picture"]["how"] == "inverted" and mask["planes"][0].max() == 1:
            assert set(np.unique(picture)) <= {0, 255}
            picture = picture // 255  # black and white, not black and nearly black
        if relative.endswith("palette-1c-4b.tiff"):  # 16-bit colours to 8: GDAL divides by 257, Pillow by 256
            from PIL import Image

            shown = np.asarray(Image.open(ODD / relative).convert("RGB")).transpose(2, 0, 1)
            assert np.abs(picture.astype(int) - shown).max() == 1
        else:
            assert digest(picture) == entry["as_picture"]["sha256"]


def reference(path: Path, entry: dict[str, Any]) -> list[np.ndarray]:
    """The images as (band, row, col) without alpha, upright; checked against the digest where nothing was left out."""
    if entry["reader"] == "rasterio":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(entry.get("open", "{path}").format(path=path)) as file:
                col, row, width, height = entry.get("window") or (0, 0, file.width, file.height)
                pixels = file.read(window=rasterio.windows.Window(col, row, width, height))
                kinds = file.colorinterp
                turned = entry.get("orientation", 1) if file.crs is None else 1
        if not entry.get("lossy"):
            assert digest(pixels) == entry["sha256"]
        kept = [n for n, kind in enumerate(kinds) if kind != ColorInterp.alpha] or [0]
        return [upright(pixels[kept], turned)]
    if entry["reader"] == "PIL":
        from PIL import Image

        with Image.open(path) as picture:
            pixels = np.asarray(picture)
        stored = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        if picture.mode == "1":
            stored = stored.astype(np.uint8) * 255
        if picture.mode == "P":
            stored = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
        return [upright(stored[:3] if len(stored) == 4 else stored, entry.get("orientation", 1))]
    with tifffile.TiffFile(path) as file:
        if "page" in entry and entry["images"] == 1:
            return [_bands_first(file.pages[entry["page"]].asarray(), file.pages[entry["page"]].axes)]
        if entry["images"] > 1 and "axes" not in entry:
            return [_bands_first(page.asarray(), page.axes) for page in file.pages]
        series = file.series[0]
        pixels, axes = series.asarray(), series.axes
    if "part" in path.name:  # each file of the set has one plane; together they are all, and none twice
        return [pixels[int(path.name.split("part")[1][0])][None]]
    if axes in ("YX", "YXS", "SYX"):
        return [_bands_first(pixels, axes)]
    assert digest(pixels) == entry["sha256"]
    if "C" in axes:
        pixels = np.moveaxis(pixels, axes.index("C"), -3)
        return list(pixels.reshape(-1, *pixels.shape[-3:]))
    return list(pixels.reshape(-1, 1, *pixels.shape[-2:]))


def _bands_first(pixels: np.ndarray, axes: str) -> np.ndarray:
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0) if axes.endswith("S") else pixels


def check_place(entry: dict[str, Any], found: dict[str, Any]) -> None:
    """Where on earth it lies."""
    if entry.get("epsg"):
        assert found["crs"].to_epsg() == entry["epsg"]
    if "transform" in entry:
        assert np.allclose(found["transform"][:6], entry["transform"], rtol=0, atol=1e-8)
    assert found["gcps"] == entry.get("gcps", 0)
    assert found["rpcs"] == entry.get("rpcs", False)


@pytest.mark.parametrize("relative", [name for name in EXPECTED["bad"] if "/weights/" not in name])
def test_bad_files_are_refused_in_one_line(relative: str) -> None:
    entry = EXPECTED["bad"][relative]
    path = ODD / relative
    may_be_read = entry["outcome"] != "refuse" and not entry["outcome"].startswith("refuse;")
    try:
        images = guarded(lambda: len(read(path, None, "image")["planes"]))
    except InputError as error:
        text = one_line(str(error))
        assert str(path) in text
        assert "expected" in text
        assert len(text.splitlines()) == 1
        return
    assert may_be_read, "was read"
    assert images == 1


@pytest.mark.parametrize("relative", [name for name in EXPECTED["bad"] if "/weights/" in name])
def test_bad_weights_are_refused_in_one_line(relative: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NothingDoneError) as caught:
        guarded(load, ODD / relative)
    assert str(ODD / relative) in str(caught.value)
    assert capfd.readouterr().out == ""


def test_names_that_scripts_stumble_over(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(ODD / "names.zip") as archive:
        archive.extractall(tmp_path)
    for name, entry in EXPECTED["names"].items():
        (found,) = list(tmp_path.rglob("*"))[:0] or [path for path in tmp_path.rglob("*") if path.name == name]
        with Source(found) as source:
            assert digest(source.window(0, 0, source.grid.height, source.grid.width)) == entry["sha256"]
