import subprocess
import sys
import tracemalloc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
import tifffile
from helpers import write_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

from segcli.errors import InputError
from segcli.files import PART
from segcli.raster.bands import match_bands
from segcli.raster.fit import match_ranges
from segcli.raster.gdal import deaf_to
from segcli.raster.grid import Grid
from segcli.raster.rows import Strip, in_step
from segcli.raster.sink import BLOCK, Layout, create
from segcli.raster.source import Source


def read(path: Path, **arguments: object) -> np.ndarray:
    with Source(path, **arguments) as source:  # type: ignore[arg-type]
        return np.concatenate([pixels for _, pixels in source.rows(7)], axis=1)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_rows_are_the_pixels(tmp_path: Path, rng: np.random.Generator, suffix: str, dtype: str, channels: int) -> None:
    pixels = rng.integers(0, np.iinfo(dtype).max, (23, 31, channels), dtype)
    path = write_picture(tmp_path / f"a{suffix}", pixels if channels > 1 else pixels[:, :, 0])
    with Source(path) as source:
        assert (source.grid.height, source.grid.width, source.dtype) == (23, 31, dtype)
        assert len(match_bands(source, min(channels, 3))) == min(channels, 3)
    assert np.array_equal(read(path)[:3], pixels.transpose(2, 0, 1)[:3])


def test_chosen_and_repeated_bands(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 255, (9, 5, 3), np.uint8)
    path = write_picture(tmp_path / "a.png", pixels)
    with Source(path) as source:
        assert np.array_equal(source.window(2, 1, 4, 3, (2, 0)), pixels.transpose(2, 0, 1)[[2, 0], 2:6, 1:4])
        assert np.array_equal(source.window(0, 0, 9, 5, (1, 1)), pixels.transpose(2, 0, 1)[[1, 1]])


def test_a_palette_is_colours_in_an_image_and_indices_in_a_mask(tmp_path: Path) -> None:
    indices = np.arange(6, dtype=np.uint8).reshape(2, 3)
    picture = Image.new("P", (3, 2))
    picture.putdata(indices.ravel().tolist())
    colors = [(n * 40, 255 - n, 7) for n in range(6)]
    picture.putpalette([part for color in colors for part in color])
    picture.save(tmp_path / "p.png")
    assert np.array_equal(read(tmp_path / "p.png", purpose="mask")[0], indices)
    assert np.array_equal(read(tmp_path / "p.png").transpose(1, 2, 0), np.array(colors).reshape(2, 3, 3))


def test_a_grey_palette_is_one_band(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putdata([0, 1])
    picture.putpalette([10, 10, 10, 200, 200, 200])
    picture.save(tmp_path / "p.png")
    assert read(tmp_path / "p.png").tolist() == [[[10, 200]]]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("strip", [16, 10_000])
def test_a_truncated_file_is_named_and_never_filled_up(tmp_path: Path, suffix: str, strip: int) -> None:
    path = write_picture(tmp_path / f"cut{suffix}", np.random.default_rng(1).integers(0, 255, (99, 80, 3), np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=f"cut{suffix}"), Source(path) as source:
        list(source.rows(strip))


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("not an image")
    for name in ("a.png", "missing.tif"):
        with pytest.raises(InputError, match=name):
            Source(tmp_path / name)


def write_bands(path: Path, count: int, photometric: str) -> Path:
    grid = {"height": 2, "width": 2, "transform": from_origin(5, 5, 2, 2)}
    with rasterio.open(path, "w", driver="GTiff", count=count, dtype="uint8", photometric=photometric, **grid) as file:
        file.write(np.zeros((count, 2, 2), np.uint8))
    return path


@pytest.mark.parametrize(
    ("found", "photometric", "wanted", "bands"),
    [
        (3, "RGB", 3, (0, 1, 2)),
        (1, "MINISBLACK", 3, (0, 0, 0)),
        (4, "RGB", 3, (0, 1, 2)),  # the fourth is not marked as alpha
        (4, "RGB", 4, (0, 1, 2, 3)),
        (7, "MINISBLACK", 7, tuple(range(7))),
        (4, "MINISBLACK", 3, None),
        (5, "RGB", 3, None),
        (2, "MINISBLACK", 3, None),
        (3, "RGB", 1, None),
        (1, "MINISBLACK", 4, None),
    ],
)
def test_bands_for_a_network(
    tmp_path: Path, found: int, photometric: str, wanted: int, bands: tuple[int, ...] | None
) -> None:
    with Source(write_bands(tmp_path / "a.tif", found, photometric)) as source:
        if bands is not None:
            assert match_bands(source, wanted) == bands
            return
        with pytest.raises(InputError, match=rf"a\.tif: {found} band.*expect {wanted}"):
            match_bands(source, wanted)


def test_one_chosen_band_is_repeated_as_a_grey_image_is(tmp_path: Path) -> None:
    with Source(write_bands(tmp_path / "a.tif", 5, "MINISBLACK")) as source:
        assert match_bands(source, 3, (4,)) == (3, 3, 3)
        assert match_bands(source, 1, (4,)) == (3,)
        for chosen, wanted, words in (
            ((1, 2), 3, r"--bands names 2 bands; the weights expect 3 or 1 \(grey\)"),
            ((1,), 4, "--bands names 1 band; the weights expect 4"),
            ((6,), 3, "band 6 is alpha, or not there"),
        ):
            with pytest.raises(InputError, match=words):
                match_bands(source, wanted, chosen)


def test_weights_of_floats_take_floats_as_they_are(tmp_path: Path) -> None:
    for dtype in ("float32", "float64", "uint16"):
        path = tmp_path / f"{dtype}.tif"
        tifffile.imwrite(path, np.ones((4, 4), dtype))
        with Source(path) as source:
            if dtype != "uint16":
                assert match_ranges([source], (0,), "float32", None) == (None,)
                with pytest.raises(InputError, match=r"--input-range; the weights expect floats as they are"):
                    match_ranges([source], (0,), "float32", (0, 1))
                continue
            for given in (None, (0.0, 1.0)):
                with pytest.raises(InputError, match=r"expect floats as they are.*convert it to the values"):
                    match_ranges([source], (0,), "float32", given)


@pytest.mark.parametrize(
    ("highest", "white"), [(200, 255), (255, 255), (256, 1023), (4095, 4095), (4096, 16383), (65535, 65535)]
)
def test_a_16_bit_file_for_8_bit_weights_uses_its_camera_s_bits(tmp_path: Path, highest: int, white: float) -> None:
    pixels = np.zeros((4, 4), np.uint16)
    pixels[3, 3] = highest
    with Source(write_picture(tmp_path / "a.png", pixels)) as source:
        assert match_ranges([source], (0,), "uint8", None) == ((0, white),)
        assert match_ranges([source], (0,), "uint8", (5, 6)) == ((5, 6),)
        assert match_ranges([source], (0,), "uint16", None) == (None,)


@pytest.mark.parametrize(
    ("value", "white"), [(0, 255.0), (255, 255.0), (256, 1023.0), (4095, 4095.0), (65535, 65535.0)]
)
def test_a_16_bit_file_of_one_value_uses_its_bits_too(tmp_path: Path, value: int, white: float) -> None:
    path = write_picture(tmp_path / "a.png", np.full((8, 8), value, np.uint16))
    with Source(path) as source:
        assert match_ranges([source], (0,), "uint8", None) == ((0.0, white),)


@pytest.mark.parametrize("is_loaded", [False, True])
def test_types_and_data_are_those_of_the_chosen_bands(tmp_path: Path, is_loaded: bool) -> None:
    """A VRT may hold bands of any type; what is missing in the others does not matter, whether the image is small or
    large."""
    pixels = np.arange(64, dtype=np.float32).reshape(8, 8)
    place = {"transform": from_origin(0, 8, 1, 1), "crs": "EPSG:32633"}
    names = []
    for name, band in (("q", pixels.astype(np.uint8)), ("a", pixels.astype(np.uint16) * 50), ("b", pixels)):
        names.append(tmp_path / f"{name}.tif")
        with rasterio.open(names[-1], "w", "GTiff", 8, 8, 1, dtype=band.dtype.name, **place) as file:
            file.write(band, 1)
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{n}"><SimpleSource><SourceFilename relativeToVRT="1">{name.name}'
        "</SourceFilename></SimpleSource></VRTRasterBand>"
        for n, (kind, name) in enumerate(zip(("Byte", "UInt16", "Float32"), names, strict=True), start=1)
    )
    (tmp_path / "s.vrt").write_text(f'<VRTDataset rasterXSize="8" rasterYSize="8">{bands}</VRTDataset>')
    with Source(tmp_path / "s.vrt") as source:
        if is_loaded:
            source.load()
        assert match_ranges([source], (1,), "uint8", None) == ((0.0, 4095.0),)
        assert match_ranges([source], (0,), "uint8", None) == (None,)
        assert match_ranges([source], (2,), "float32", None) == (None,)
        assert np.array_equal(source.window(0, 0, 8, 8, (1,))[0], pixels.astype(np.uint16) * 50)
        with pytest.raises(InputError, match=r"s\.vrt: bands of uint8 and of uint16; expected one type; choose with"):
            match_ranges([source], (0, 1), "uint8", None)
    stack = np.stack([pixels, pixels, pixels])
    stack[:2, 2:4, 2:4] = np.nan
    tifffile.imwrite(tmp_path / "f.tif", stack, photometric="minisblack", planarconfig="separate", metadata=None)
    with Source(tmp_path / "f.tif") as source:
        if is_loaded:
            source.load()
        for chosen, missing in (((0, 1), 4), ((0, 2), 0), (None, 0), ((1,), 4)):
            _, valid = source.patch(0, 0, 8, 8, chosen)
            assert (0 if valid is None else np.count_nonzero(~valid)) == missing, chosen


def test_bands_that_are_left_out_do_not_count(tmp_path: Path) -> None:
    pixels = np.full((4, 4, 4), 3500, np.uint16)
    pixels[:, :, 3] = 65535
    with Source(write_picture(tmp_path / "a.tif", pixels)) as source:
        assert match_ranges([source], match_bands(source, 3), "uint8", None) == ((0, 4095),)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_a_pixel_are_black_to_white_in_an_image_and_plain_in_a_mask(tmp_path: Path, bits: int) -> None:
    values = np.arange(16, dtype=np.uint8).reshape(4, 4) % 2**bits
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", height=4, width=4, count=1, dtype="uint8", nbits=bits,
        transform=from_origin(5, 5, 2, 2),
    ) as file:  # fmt: skip
        file.write(values, 1)
    assert np.array_equal(read(tmp_path / "a.tif", purpose="mask")[0], values)
    assert np.array_equal(read(tmp_path / "a.tif")[0], values * (255 // (2**bits - 1)))


def test_a_loaded_image_needs_its_file_no_more(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 255, (9, 5, 3), np.uint8)
    path = write_picture(tmp_path / "a.png", pixels)
    source = Source(path)
    source.load()
    path.unlink()
    assert source.is_loaded
    rows = np.concatenate([strip for _, strip in source.rows(4, (2, 1))], axis=1)
    assert np.array_equal(rows, pixels.transpose(2, 0, 1)[[2, 1]])


def test_a_dtype_without_a_known_range_needs_to_be_told(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), np.zeros((4, 4), np.float32))
    with Source(path) as source, pytest.raises(InputError, match=r"float32.*uint8.*--input-range"):
        match_ranges([source], (0,), "uint8", None)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (40, 30), (BLOCK + 1, BLOCK + 90), (3 * BLOCK, 20)])
@pytest.mark.parametrize("strip", [1, 37, 4096])
def test_what_is_written_comes_back(
    tmp_path: Path, rng: np.random.Generator, suffix: str, height: int, width: int, strip: int
) -> None:
    labels = rng.integers(0, 3, (height, width), np.uint8)
    path = tmp_path / "new" / f"a{suffix}"
    colors = {0: (0, 0, 0), 1: (255, 0, 0), 2: (3, 200, 9), 255: (255, 255, 255)}
    with create(path, Grid(height, width), Layout(1, "uint8", colors)) as sink:
        for row in range(0, height, strip):
            sink.write(row, labels[row : row + strip])
    with Image.open(path) as picture:  # another library than the one that wrote it
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), labels)
        assert np.array_equal(np.asarray(picture.convert("RGB")), np.array([colors[i] for i in range(3)])[labels])
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_georeferencing_is_kept(tmp_path: Path) -> None:
    grid = Grid(5, 4, CRS.from_epsg(32633), from_origin(500_000, 5_000_000, 10, 20))
    with create(tmp_path / "a.tif", grid, Layout(1, "uint8")) as sink:
        sink.write(0, np.zeros((5, 4), np.uint8))
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert (dataset.crs, dataset.transform) == (grid.crs, grid.transform)
    with Source(tmp_path / "a.tif") as source:
        assert source.grid == grid


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_file_is_whole_or_not_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text("the old one")
    with pytest.raises(KeyError), create(path, Grid(9, 9), Layout(1, "uint8")) as sink:
        sink.write(0, np.zeros((4, 9), np.uint8))
        raise KeyError
    with pytest.raises(ValueError, match="4 of 9 rows"), create(path, Grid(9, 9), Layout(1, "uint8")) as sink:
        sink.write(0, np.zeros((4, 9), np.uint8))
    with (
        pytest.raises(ValueError, match="row 4 from column 0 was due"),
        create(path, Grid(9, 9), Layout(1, "uint8")) as sink,
    ):
        sink.write(0, np.zeros((4, 9), np.uint8))
        sink.write(5, np.zeros((4, 9), np.uint8))
    assert path.read_text() == "the old one"
    assert not list(tmp_path.glob(f"*{PART}"))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("room", [2000, 60_000, 150_000])
def test_a_disk_that_is_full_at_the_very_end_leaves_nothing(tmp_path: Path, suffix: str, room: int) -> None:
    """GDAL writes the last blocks on closing, and rasterio passes over what fails there."""
    script = f"""
import resource, signal, sys
import numpy as np
from pathlib import Path
from segcli.errors import SegcliError
from segcli.raster.sink import Layout, create
from segcli.raster.grid import Grid
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
labels = np.random.default_rng(0).integers(0, 200, (400, 500), np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))
try:
    with create(Path("mask{suffix}"), Grid(400, 500), Layout(1, "uint8")) as sink:
        sink.write(0, labels)
except SegcliError as error:
    sys.exit(f"refused: {{error}}")
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "refused: mask" in result.stderr
    assert "cannot be written" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_faults_of_others_are_not_put_down_to_the_output(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="the reader's"), create(tmp_path / "a.tif", Grid(1, 1), Layout(1, "uint8")):
        raise OSError("the reader's")
    (tmp_path / "b.tif").mkdir()
    with (
        pytest.raises(InputError, match=r"b\.tif: cannot be written"),
        create(tmp_path / "b.tif", Grid(1, 1), Layout(1, "uint8")) as sink,
    ):
        sink.write(0, np.zeros((1, 1), np.uint8))


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "a.tif"
    with pytest.raises(InputError, match="cannot be written"), create(path, Grid(1, 1), Layout(1, "uint8")):
        pass


def test_pictures_opened_by_several_threads_at_once_warn_of_nothing(tmp_path: Path) -> None:
    """Python's warning filters belong to all threads, and a picture has no georeference to warn of."""
    write_picture(tmp_path / "a.png", np.zeros((4, 4), np.uint8))

    def look(_: int) -> int:
        with Source(tmp_path / "a.png") as source:
            return source.grid.height

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(look, range(400))) == {4}


@settings(max_examples=150, deadline=None)
@given(data=st.data(), piece=st.sampled_from([1, 600, 4000, 2**22]), strip=st.integers(1, 90))
def test_any_window_in_any_pieces_is_rasterio_s(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, piece: int, strip: int
) -> None:
    """Whole rows and rectangles, at any columns, whatever part of a row of blocks is read at once."""
    folder = tmp_path_factory.getbasetemp()
    path = folder / "windows.tif"
    if not path.exists():
        pixels = np.random.default_rng(0).integers(0, 99, (2, 70, 150), np.uint8)
        profile = {"driver": "GTiff", "count": 2, "height": 70, "width": 150, "dtype": "uint8", "nodata": 7}
        tiles = {"tiled": True, "blockxsize": 32, "blockysize": 16, "transform": from_origin(0, 99, 2, 2)}
        with rasterio.open(path, "w", **(profile | tiles)) as file:
            file.write(pixels)
    first = data.draw(st.integers(0, 149))
    end = data.draw(st.integers(first + 1, 150))
    with rasterio.open(path) as file:
        window = rasterio.windows.Window(first, 0, end - first, 70)
        stored, valid = file.read([2, 1], window=window), file.dataset_mask(window=window) > 0
        expected = np.where((stored == 7) & valid, np.nan, stored)  # of bands with a hole there
    with Source(path) as source, pytest.MonkeyPatch.context() as patch:
        patch.setattr("segcli.raster.source.PIECE_BYTES", piece)
        strips = list(source.strips(strip, (1, 0), first, end))
        assert [s.first_row for s in strips] == list(range(0, 70, strip))
        np.testing.assert_array_equal(np.concatenate([s.pixels for s in strips], axis=1), expected)
        found = [np.ones(s.pixels.shape[1:], bool) if s.valid is None else s.valid for s in strips]
        np.testing.assert_array_equal(np.concatenate(found), valid)
        np.testing.assert_array_equal(source.window(3, first, 5, end - first, (1,)), stored[:1, 3:8])


def test_a_low_wide_output_in_panels_is_no_larger(tmp_path: Path, rng: np.random.Generator) -> None:
    """Its tiles are written once; rows as wide as the image would be written again with each panel."""
    pixels, sizes = rng.integers(0, 3, (40, 2000), np.uint8), []
    for width in (2000, 512):
        with create(tmp_path / "a.tif", Grid(40, 2000), Layout(1, "uint8")) as sink:
            for first in range(0, 2000, width):
                sink.write(0, pixels[:, first : first + width], first)
        sizes.append((tmp_path / "a.tif").stat().st_size)
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert (file.pages[0].tilelength, file.pages[0].tilewidth) == (48, 512)
            assert np.array_equal(file.asarray(), pixels)
    assert sizes[0] == sizes[1]


def test_rows_of_one_block_are_there_at_a_time(tmp_path: Path) -> None:
    """Neither pieces nor strips that somebody still has keep another row of blocks while one is read."""
    profile = {"driver": "GTiff", "count": 3, "height": 1024, "width": 4096, "dtype": "uint8", "interleave": "pixel"}
    profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256, "transform": from_origin(5, 5, 2, 2)}
    with rasterio.open(tmp_path / "a.tif", "w", **profile) as file:
        file.write(np.zeros((3, 1024, 4096), np.uint8))
    with Source(tmp_path / "a.tif") as source:
        source.window(0, 0, 1, 1)  # what is made once does not count
        tracemalloc.start()
        for strip in source.strips(24):  # 24 does not divide the blocks' height
            assert strip.pixels.shape[0] == 3
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    row_of_blocks = 3 * 256 * 4096
    assert peak < 2.5 * row_of_blocks  # that, and once more behind what waited


def test_strips_in_step_keep_no_block_that_is_behind(tmp_path: Path) -> None:
    """As `zip` would, which keeps what it gave two rounds ago."""
    for name in ("a", "b"):
        write_picture(tmp_path / f"{name}.tif", np.zeros((100, 50), np.uint8))
    blocks: list[weakref.ref[Any]] = []

    def strips(source: Source) -> Iterator[Strip]:
        for strip in source.strips(4):
            blocks.append(weakref.ref(strip.pixels))
            yield strip
            del strip

    with Source(tmp_path / "a.tif") as one, Source(tmp_path / "b.tif") as other:
        row = 0
        for pair in in_step(strips(one), strips(other)):
            assert pair[0].first_row == pair[1].first_row == row
            assert sum(block() is not None for block in blocks) == 2
            row += 4
    assert row == 100


def test_strips_in_step_end_together() -> None:
    assert list(in_step(iter("ab"), iter("cd"))) == [["a", "c"], ["b", "d"]]
    with pytest.raises(ValueError, match="one ends before another"):
        list(in_step(iter("ab"), iter("c")))


def test_a_sink_keeps_no_strip(tmp_path: Path, rng: np.random.Generator) -> None:
    """Small arrays that wait for a row of tiles would lie between the network's features, as holes."""
    pixels = rng.integers(0, 9, (3, 1100, 700), np.uint8)
    with create(tmp_path / "a.tif", Grid(1100, 700), Layout(3, "uint8")) as sink:
        for row in range(0, 1100, 48):  # which does not divide a row of tiles
            strip = pixels[:, row : row + 48].copy()
            known = weakref.ref(strip)
            sink.write(row, strip)
            del strip
            assert known() is None
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), pixels)


@pytest.mark.parametrize("first_row", [0, 1, 16, 37, 69])
def test_strips_from_a_row_on(tmp_path: Path, rng: np.random.Generator, first_row: int) -> None:
    pixels = rng.integers(0, 99, (1, 70, 40), np.uint8)
    profile = {"driver": "GTiff", "count": 1, "height": 70, "width": 40, "dtype": "uint8"}
    profile |= {"transform": from_origin(5, 5, 2, 2)}
    with rasterio.open(tmp_path / "a.tif", "w", tiled=True, blockxsize=16, blockysize=16, **profile) as file:
        file.write(pixels)
    with Source(tmp_path / "a.tif") as source:
        strips = list(source.strips(10, first_row=first_row))
    assert strips[0].first_row == first_row
    np.testing.assert_array_equal(np.concatenate([s.pixels for s in strips], axis=1), pixels[:, first_row:])


def test_as_stored_there_are_alpha_and_complex_numbers(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 255, (6, 5, 4), np.uint8)
    path = write_picture(tmp_path / "a.png", pixels)
    assert np.array_equal(read(path, purpose="stored"), pixels.transpose(2, 0, 1))
    profile = {"driver": "GTiff", "count": 1, "height": 2, "width": 2, "dtype": "complex64"}
    with rasterio.open(tmp_path / "c.tif", "w", transform=from_origin(5, 5, 2, 2), **profile) as file:
        file.write(np.full((1, 2, 2), 1 + 2j, np.complex64))
    assert read(tmp_path / "c.tif", purpose="stored").tolist() == [[[1 + 2j] * 2] * 2]
    with pytest.raises(InputError, match="complex numbers"):
        Source(tmp_path / "c.tif")


def test_narrow_files_of_many_bands_have_few_blocks(tmp_path: Path, rng: np.random.Generator) -> None:
    """In GDAL's cache each band has one of its own: in strips of a row, two such files at once took for ever."""
    values = rng.random((256, 1100, 13), np.float32)
    grid = Grid(1100, 13)
    with create(tmp_path / "a.tif", grid, Layout(256, "float32")) as sink:
        for row in range(0, 1100, 50):
            sink.write(row, values[:, row : row + 50])
    with deaf_to(NotGeoreferencedWarning), rasterio.open(tmp_path / "a.tif") as file:
        assert np.array_equal(file.read(), values)
        assert file.block_shapes[0] == (64, 13)
