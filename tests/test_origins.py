"""What a raster is read from, as far as it is of this machine."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers import write_picture
from rasterio.transform import from_origin

from segcli import batch
from segcli.errors import UsageError
from segcli.manifest import opened
from segcli.options import ColorizeOptions
from segcli.raster.names import Name
from segcli.raster.origins import origins

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
        assert why(kind) == (None if "z.zip" in str(names[kind]) or "vrt" in kind else "source changed"), kind
        (tmp_path / "m.tfw").unlink()
        write(tmp_path / "m.tif", 1)
