"""What a raster is read from, as far as it is of this machine."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers import SHARED, write_picture
from rasterio.transform import from_origin

from segcli import batch
from segcli.errors import InputError, UsageError
from segcli.manifest import opened
from segcli.options import ColorizeOptions
from segcli.raster.grid import Grid
from segcli.raster.names import Name
from segcli.raster.origins import origins
from segcli.raster.source import Source
from segcli.raster.stored import Stored
from segcli.tiling.manifest import Scene
from segcli.tiling.marks import changed, unchanged

VRT = (
    '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    '<SourceFilename relativeToVRT="1">{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>'
    "</VRTDataset>"
)


def write(path: Path, value: int) -> Path:
    with rasterio.open(path, "w", driver="GTiff", count=1, height=8, width=8, dtype="uint8",
                       transform=from_origin(0, 8, 1, 1), crs="EPSG:32633") as file:  # fmt: skip
        file.write(np.full((8, 8), value, np.uint8), 1)
    return path


@pytest.fixture
def names(tmp_path: Path) -> dict[str, Name]:
    """One raster by many names."""
    write(tmp_path / "m.tif", 1)
    (tmp_path / "v.vrt").write_text(VRT.format("m.tif"))
    (tmp_path / "w.vrt").write_text(VRT.format("v.vrt"))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(tmp_path / "m.tif", "deep/m.tif")
    return {
        "file": tmp_path / "m.tif", "vrt": tmp_path / "v.vrt", "vrt of a vrt": tmp_path / "w.vrt",
        "archive": tmp_path / "z.zip", "member": f"/vsizip/{tmp_path}/z.zip/deep/m.tif",
        "member in braces": f"/vsizip/{{{tmp_path}/z.zip}}/deep/m.tif",
        "data set": f"GTIFF_RAW:{tmp_path / 'm.tif'}", "address": f"file://{tmp_path}/m.tif",
        "page": f"GTIFF_DIR:1:{tmp_path / 'm.tif'}", "page at": f"GTIFF_DIR:off:8:{tmp_path / 'm.tif'}",
        "quoted": f'NETCDF:"{tmp_path}/m.tif":red', "image": f"NITF_IM:0:{tmp_path}/m.tif",
        "inner name": f"HDF5:{tmp_path}/m.tif://a/b", "some bands": f"vrt://{tmp_path}/m.tif?bands=1",
        "part": f"/vsisubfile/0_500,{tmp_path}/m.tif", "quoted member": f'NETCDF:"/vsizip/{tmp_path}/z.zip/m.nc":red',
    }  # fmt: skip


def test_names_of_all_kinds(tmp_path: Path, names: dict[str, Name], monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"vrt": ["v.vrt", "m.tif"], "vrt of a vrt": ["w.vrt", "v.vrt", "m.tif"], "archive": ["z.zip"]}
    files |= {"member": ["z.zip"], "member in braces": ["z.zip"], "quoted member": ["z.zip"]}
    for kind, name in names.items():
        assert origins(name) == tuple(tmp_path / file for file in files.get(kind, ["m.tif"])), kind
    (tmp_path / "m.tfw").touch()
    assert origins(tmp_path / "m.tif") == (tmp_path / "m.tif", tmp_path / "m.tfw")
    for elsewhere in ("https://example.org/a.tif", "/vsicurl/https://example.org/a.tif", tmp_path / "none.tif",
                      "/vsizip/none.zip/a.tif", tmp_path):  # fmt: skip
        assert origins(elsewhere) == ()
    (tmp_path / "z.zarr").mkdir()
    (tmp_path / "z.zarr" / ".zgroup").touch()
    for name in (tmp_path / "z.zarr", f'ZARR:"{tmp_path}/z.zarr":/red', f"ZARR:{tmp_path}/z.zarr"):
        assert origins(name) == (tmp_path / "z.zarr",)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "temperature").touch()
    assert origins("NETCDF:m.tif:temperature") == (Path("m.tif"), Path("m.tfw"))
    (tmp_path / "bad.vrt").write_text("<VRTDataset")
    assert origins(tmp_path / "bad.vrt") == (tmp_path / "bad.vrt",)


def test_a_vrt_over_names_of_all_kinds(tmp_path: Path, names: dict[str, Name], monkeypatch: pytest.MonkeyPatch) -> None:
    """What they lead to counts, seen from the VRT's folder or from where the command runs, with what lies beside
    it; where that is unknown, nobody can tell."""
    over = tmp_path / "over.vrt"
    page, mask = "GTIFF_DIR:1:m.tif", tmp_path / "m.tif.msk"
    mask.touch()
    for named in (page, f"GTIFF_DIR:1:{tmp_path}/m.tif", "v.vrt", "m.tif"):
        over.write_text(VRT.format(named))
        assert {tmp_path / "m.tif", mask} <= set(origins(over) or ()), named
    over.write_text(VRT.format(page).replace('relativeToVRT="1"', ""))
    assert origins(over) == (over,)  # it is refused: from here there is no such file
    monkeypatch.chdir(tmp_path)
    assert origins(over) == (over, tmp_path / "m.tif", mask)
    (tmp_path / "z.zarr").mkdir()
    (tmp_path / "z.zarr" / ".zgroup").touch()
    for unknown in ("none.tif", "z.zarr", 'ZARR:"z.zarr":/red'):
        over.write_text(VRT.format(unknown))
        assert origins(over) is None, unknown
        scene = Scene("over", "over.vrt", changed(over), Grid(8, 8), Stored(1, "uint8"))
        assert not unchanged(scene, [over], tmp_path), unknown


def test_a_vrt_over_data_sets_and_archives(tmp_path: Path, names: dict[str, Name]) -> None:
    """Only what can be followed is: an address is one behind a driver's name, too, and an archive's member that names
    others in its turn is not taken."""
    over, archive = tmp_path / "over.vrt", tmp_path / "z.zip"
    with zipfile.ZipFile(archive, "a") as opened_again:
        opened_again.writestr("inner.tif", VRT.format("/vsicurl/http://127.0.0.1:9/a.tif"))
    (tmp_path / "http").touch()
    for named in (f"/vsizip/{archive}/deep/m.tif", f"/vsizip/{{{archive}}}/deep/m.tif"):
        over.write_text(VRT.format(named))
        assert origins(over) == (over, archive)
        with Source(over) as source:
            assert (source.window(0, 0, 8, 8) == 1).all()
    elsewhere, closed = "not a file of this machine", "cannot be looked through in its archive; unpack it"
    for named, why in {
        f"/vsizip/{archive}/inner.tif": closed, f"/vsizip/{archive}/none.tif": closed, f"/vsitar/{archive}/m": closed,
        f'NETCDF:"/vsizip/{archive}/deep/m.tif":a': closed, "/vsizip/none.zip/a.tif": elsewhere,
        "/vsizip//vsicurl/http://127.0.0.1:9/a.zip/a.tif": elsewhere, "NETCDF:http://127.0.0.1:9/a.nc:a": elsewhere,
        'NETCDF:"http://127.0.0.1:9/a.nc":a': elsewhere, "EEDAI:image": elsewhere, "NETCDF:none.nc:a": elsewhere,
        "http://127.0.0.1:9/a.tif": elsewhere, "x[a]http://127.0.0.1:9/a.tif": elsewhere,
    }.items():  # fmt: skip
        over.write_text(VRT.format(named))
        with pytest.raises(InputError, match=why):
            Source(over)


@pytest.mark.skipif(not SHARED.exists(), reason="shared data are not here")
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_vrt_over_a_data_set_of_hdf5(tmp_path: Path) -> None:
    file = tmp_path / "two-subs.h5"
    file.write_bytes((SHARED / "odd" / "good" / "nd" / "two-subs.h5").read_bytes())
    with rasterio.open(file) as held:
        inside = held.subdatasets[0].partition("://")[2]
    with Source(f"HDF5:{file}://{inside}") as plain:
        expected = plain.window(0, 0, 3, 3)
    over = tmp_path / "over.vrt"
    sized = VRT.replace('Size="8"', 'Size="3"').replace("Byte", "Float64")
    over.write_text(sized.format(f"HDF5:two-subs.h5://{inside}"))
    assert origins(over) == (over, file)
    with Source(over) as source:
        assert np.array_equal(source.window(0, 0, 3, 3), expected)


def test_what_is_read_through_another_name_is_not_overwritten(tmp_path: Path, names: dict[str, Name]) -> None:
    for kind in ("vrt", "vrt of a vrt", "data set", "address", "page", "some bands"):
        with pytest.raises(UsageError, match=r"m\.tif: is an input, and would be overwritten"):
            batch.plan([names[kind]], tmp_path / "m.tif", lambda _: ".tif", recursive=False)


def test_what_changes_behind_a_name_makes_its_output_stale(tmp_path: Path, names: dict[str, Name]) -> None:
    out = tmp_path / "out"
    options = ColorizeOptions((), out)

    def why(kind: str) -> str | None:
        (job,) = batch.plan([names[kind]], out, lambda _: ".png", recursive=False)[1]
        assert job.made_of is not None
        with opened(out, "colorize", options) as manifest:
            found = manifest.why(job.source, job.output, job.made_of)
            write_picture(job.output, np.zeros((8, 8), np.uint8))
            manifest.add(job.source, [job.output], job.made_of)
        return found

    for number, kind in enumerate(names):
        (out / "segcli.jsonl").unlink(missing_ok=True)
        assert (why(kind), why(kind)) == ("new", None), kind
        if "z.zip" in str(names[kind]):
            with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
                archive.writestr("deep/m.tif", str(number))
        else:
            write(tmp_path / "m.tif", 2 + number)
        assert (why(kind), why(kind)) == ("source changed", None), kind
        (tmp_path / "m.tfw").write_text("1\n0\n0\n-1\n5\n5\n")
        assert why(kind) == (None if "z.zip" in str(names[kind]) else "source changed"), kind
        (tmp_path / "m.tfw").unlink()
        write(tmp_path / "m.tif", 1)
