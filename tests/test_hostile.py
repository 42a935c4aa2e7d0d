"""Files that were made to do harm, given to the program itself: refused in one line, in bounded memory and time, with
nothing written but the record of the run, and nothing outside the output folder.

Each test makes its files; whoever wants to add one finds the pieces at the top.
"""

import gzip
import io
import json
import os
import pickle
import re
import resource
import shutil
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from helpers import write_picture
from ready import Ready

from segcli.errors import InputError
from segcli.network import checkpoint
from segcli.raster.images import open_images

MEMORY, SECONDS = 4 << 30, 60
"""Bytes of data for a process that begins with half a GB of them; seconds on a busy machine."""

ESCAPED = Path("/tmp/escaped.png")
"""Where one of the archives would have its file."""

NOTES = re.compile("done |failed: |weights: |tiles |0.00 Mpx at |.* tiles cannot keep ")
"""How lines begin that tell of the run as a whole, or of what a format cannot hold."""

RECORDS = {"segcli.jsonl", "tiles.unfinished.jsonl"}
"""What tells the next run how far this one came."""

BOMB = '<!DOCTYPE a [<!ENTITY a0 "ha">' + "".join(
    f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12)
) + "]>"  # fmt: skip
"""A billion laughs: eleven entities, each of ten of the one before it."""

EXTERNAL = '<!DOCTYPE a [<!ENTITY a11 SYSTEM "file:///etc/passwd">]>'


@dataclass(frozen=True)
class Ended:
    """A run: its exit code, the lines about what was refused, the other lines, and files that it has made, seen from
    its folder."""

    code: int
    refusals: list[str]
    said: list[str]
    made: set[str]


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """Two folders further down, so that what climbs out of it is found."""
    return below(tmp_path)


def below(folder: Path) -> Path:
    inner = folder / "a" / "b"
    inner.mkdir(parents=True)
    return inner


def run(ready: Ready, folder: Path, *arguments: object, stdin: bytes = b"") -> Ended:
    """The program in `folder`, as a shell would run it, with less memory."""

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    before = files(folder)
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with ready.popen(arguments, folder, preexec_fn=bounded, **pipes) as process:
        try:
            _, said = process.communicate(stdin, SECONDS)
        finally:
            process.kill()
    lines = said.decode(errors="backslashreplace").splitlines()
    refusals = [line for line in lines if line.startswith("segcli: ")]
    assert not ESCAPED.exists()
    return Ended(process.returncode, refusals, [line for line in lines if line not in refusals], files(folder) - before)


def files(folder: Path) -> set[str]:
    """All in `folder` and in the two above it, as seen from `folder`."""
    return {os.path.relpath(path, folder) for path in folder.parents[1].rglob("*") if path.is_file()}


def refused(ready: Ready, folder: Path, *arguments: object, words: str, stdin: bytes = b"") -> str:
    """The one line that a run ends with that does nothing."""
    ended = run(ready, folder, *arguments, stdin=stdin)
    assert ended.code in (1, 2, 3), ended
    assert len(ended.refusals) == 1, ended
    assert all(NOTES.match(line) for line in ended.said), ended
    assert {Path(name).name for name in ended.made} <= RECORDS, ended
    assert all(name.startswith("out/") for name in ended.made), ended
    assert words in ended.refusals[0], ended
    assert "--debug" not in ended.refusals[0], ended  # said of errors that nobody thought of
    return ended.refusals[0]


def tiff(tags: dict[int, tuple[int, int] | bytes], body: bytes = b"", following: int = 0, order: str = "<") -> bytes:
    """A TIFF of one page: (type, value) by tag, or ASCII text; `body` comes after the page, at `PIXELS`."""
    entries, texts = b"", b""
    for tag, value in sorted(tags.items()):
        if isinstance(value, bytes):
            entries += struct.pack(order + "HHII", tag, 2, len(value), PIXELS + len(body) + len(texts))
            texts += value
        else:
            kind, number = value
            entries += struct.pack(order + "HHI", tag, kind, 1) + struct.pack(order + "I", number)
    page = struct.pack(order + "H", len(tags)) + entries + struct.pack(order + "I", following)
    head = struct.pack(order + "2sHI", b"II", 42, 8) + page
    assert len(head) <= PIXELS
    return head.ljust(PIXELS, b"\0") + body + texts


PIXELS = 256
SHORT, LONG = 3, 4


def grey(width: int, height: int, strip_bytes: int, compression: int = 1) -> dict[int, tuple[int, int] | bytes]:
    """The tags of an 8-bit image in one strip, which lies at `PIXELS`."""
    return {
        256: (LONG, width), 257: (LONG, height), 258: (SHORT, 8), 259: (SHORT, compression), 262: (SHORT, 1),
        273: (LONG, PIXELS), 277: (SHORT, 1), 278: (LONG, height), 279: (LONG, strip_bytes),
    }  # fmt: skip


def ome(width: int, height: int, text: str) -> bytes:
    """A whole TIFF of that size with that description."""
    return tiff(grey(width, height, width * height) | {270: text.encode() + b"\0"}, bytes(width * height))


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """With 8 bits of grey; `pixels` are compressed rows."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", pixels), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
              for kind, data in parts)  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def zeros(count: int) -> bytes:
    """So many zero bytes, compressed without ever being there."""
    whole, rest = divmod(count, 2**20)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)  # neither head nor checksum, which are of the whole
    block = squeeze.compress(bytes(2**20)) + squeeze.flush(zlib.Z_FULL_FLUSH)  # after which nothing is remembered
    last = squeeze.compress(bytes(rest)) + squeeze.flush()
    return b"\x78\xda" + block * whole + last + struct.pack(">HH", count % 65521, 1)  # Adler-32 of zeros


def zipped(members: dict[str, bytes]) -> bytes:
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return found.getvalue()


def bomb() -> bytes:
    """A picture of 2^31 pixels in about ten thousand bytes: zeros compressed, and compressed again."""
    side = 46341
    return zipped({"a.png": png(side, side, zeros(side * (side + 1)))})


def tarred() -> bytes:
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w") as archive:
        member = tarfile.TarInfo("../../escaped.png")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    return found.getvalue()


def pages(count: int) -> bytes:
    """So many pages of one tag each, one after the other."""
    size = 2 + 12 + 4
    found = np.zeros(count, np.dtype([("n", "<u2"), ("tag", "<u2,<u2,<u4,<u4"), ("next", "<u4")]))
    found["n"], found["tag"] = 1, (256, LONG, 1, 1)
    found["next"] = 8 + size * np.arange(1, count + 1)
    found["next"][-1] = 0
    return struct.pack("<2sHI", b"II", 42, 8) + found.tobytes()


def looping() -> bytes:
    """Two pages, each of which the other follows."""
    return tiff(grey(8, 8, 64), bytes(64), following=PIXELS + 64) + tiff(grey(8, 8, 64), following=8)[8:PIXELS]


def over(name: str, raw: str = "") -> bytes:
    """A VRT over a file."""
    band = f' subClass="VRTRawRasterBand"><SourceFilename relativeToVRT="0">{name}</SourceFilename' if raw else (
        f'><SimpleSource><SourceFilename relativeToVRT="0">{name}</SourceFilename></SimpleSource'
    )  # fmt: skip
    return (
        f'<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"{band}></VRTRasterBand>'
        "</VRTDataset>"
    ).encode()


OME = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{}</OME>'

IMAGES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "a TIFF of 2^31 by 2^31 pixels": ("a.tif", lambda: tiff(grey(2**31, 2**31, 64), bytes(64)), "a.tif"),
    "a TIFF of 2^31 pixels without any": ("a.tif", lambda: tiff(grey(2**16, 2**15, 0, 8)), "32768"),
    "one strip of 4 GB": ("a.tif", lambda: tiff(grey(2**16, 2**16, 2**32 - 1), bytes(64)), "a.tif"),
    "one compressed strip of 4 GB": ("a.tif", lambda: tiff(grey(2**16, 2**16, 64, 8), zeros(2**26)), "a.tif"),
    "pages in a circle": ("a.tif", looping, "loops"),
    "a million pages": ("a.tif", lambda: pages(10**6), "pages"),
    "laughs in OME metadata": ("a.ome.tif", lambda: ome(8, 8, BOMB + OME.format("&a11;")), "entities"),
    "a file in OME metadata": ("a.ome.tif", lambda: ome(8, 8, EXTERNAL + OME.format("&a11;")), "entities"),
    "a million planes": ("a.ome.tif", lambda: ome(8, 8, OME.format(
        '<Image ID="Image:0"><Pixels DimensionOrder="XYZCT" Type="uint8" SizeX="8" SizeY="8" SizeZ="100000" '
        'SizeC="100000" SizeT="100000"><TiffData IFD="0" PlaneCount="1000000000000000"/></Pixels></Image>')),
        "1000000000000000"),
    "a VRT of the password file": ("a.vrt", lambda: over("/etc/passwd"), "/etc/passwd"),
    "its bytes as pixels": ("a.vrt", lambda: over("/etc/passwd", "raw"), "outside its folder"),
    "a VRT of a server": ("a.vrt", lambda: over("/vsicurl/http://127.0.0.1:9/a.tif"), "not a file of this machine"),
    "the same in small letters": ("a.vrt", lambda: over("/vsicurl/http://127.0.0.1:9/a.tif").replace(
        b"SourceFilename", b"sourcefilename"), "not a file of this machine"),
    "a bucket in quotes": ("a.vrt", lambda: over('NETCDF:"/vsis3/bucket/a.nc":a'), "not a file of this machine"),
    "a zip with a way up": ("a.zip", lambda: zipped({"../../escaped.png": png(8, 8, zeros(72))}), "a.zip"),
    "a zip with a way from the top": ("a.zip", lambda: zipped({"/tmp/escaped.png": png(8, 8, zeros(72))}), "a.zip"),
    "a zip bomb": ("a.zip", bomb, "46341"),
    "a gzip bomb": ("a.tif.gz", lambda: gzip.compress(bytes(2**26)), "a.tif.gz"),
    "a tar with a way up": ("a.tar", tarred, "a.tar"),
    "a PNG of 2^31 by 2^31 pixels": ("a.png", lambda: png(2**31 - 1, 2**31 - 1, zeros(99)), "a.png"),
    "a high PNG": ("a.png", lambda: png(2**20, 2**31 - 1, zeros(99)), "a.png"),
    "a JPEG of lying segments": ("a.jpg", lambda: b"\xff\xd8" + b"\xff\xe1\xff\xffExif\0\0MM\0*\xff\xff\xff\xff" * 99
                                 + b"\xff\xc0\0\x0b\x08\xff\xff\xff\xff\x01\x01\x11\0\xff\xda\0\x08\x01\x01\0\0\x3f\0",
                                 "a.jpg"),
    "a PNM of 2^31 by 2^31 pixels": ("a.pgm", lambda: b"P5 2147483647 2147483647 255\n" + bytes(99), "a.pgm"),
    "a PNM in digits": ("a.pgm", lambda: b"P2 2147483647 2147483647 255\n1 2 3", "a.pgm"),
    "a PNM in bits": ("a.pbm", lambda: b"P4 100000 10000000\n1", "a.pbm"),
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_images(tmp_path: Path, name: str, ready: Ready) -> None:
    file, make, words = IMAGES[name]
    (tmp_path / file).write_bytes(make())
    refused(ready, tmp_path, "tile", file, "--size", 64, "--out", "out", words=words)


def test_a_night_among_them(tmp_path: Path, weights: Path, ready: Ready) -> None:
    """Each is one line, and the good file among them is done."""
    (tmp_path / "scans").mkdir()
    for number, (file, make, _) in enumerate(IMAGES.values()):
        (tmp_path / "scans" / f"{number}-{file}").write_bytes(make())
    names = sorted(path.relative_to(tmp_path) for path in (tmp_path / "scans").iterdir())
    write_picture(tmp_path / "good.png", np.full((20, 20, 3), 200, np.uint8))
    listed = "\n".join(map(str, names)).encode()
    ended = run(ready, tmp_path, "predict", "-", "good.png", "--out", "out", "--weights", weights, stdin=listed)
    assert ended.code == 1, ended
    assert len(ended.refusals) == len(names), ended
    assert not any("--debug" in line for line in ended.refusals), ended
    assert all(NOTES.match(line) for line in ended.said), ended
    assert ended.made == {"out/good.png", "out/segcli.jsonl"}


def test_pixels_that_ome_metadata_place_in_another_file_are_not_read(
    tmp_path: Path, weights: Path, ready: Ready
) -> None:
    """Only the planes that lie in the file itself are, whatever the other is called."""
    (tmp_path / "other.ome.tif").write_bytes(tiff(grey(8, 8, 64), b"\xc8" * 64))
    for name in ("../other.ome.tif", str(tmp_path / "other.ome.tif")):
        place = f'<TiffData IFD="0"><UUID FileName="{name}">urn:uuid:b</UUID></TiffData>'
        pixels = (
            '<Image ID="Image:0"><Pixels DimensionOrder="XYZCT" Type="uint8" SizeX="8" SizeY="8" SizeZ="1" '
            f'SizeC="1" SizeT="1">{place}</Pixels></Image>'
        )
        text = OME.format(pixels).replace("<OME ", '<OME UUID="urn:uuid:a" ')
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / "a.ome.tif").write_bytes(ome(8, 8, text))
        refused(ready, tmp_path, "tile", "in/a.ome.tif", "--out", "out", words="0 of them lie in this file")


class _Touch:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("unpickled"),))


def safetensors(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header


def with_record(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    """A checkpoint, with another text in its metadata."""

    def changed(whole: bytes) -> bytes:
        (length,) = struct.unpack("<Q", whole[:8])
        header = json.loads(whole[8 : 8 + length])
        found = change(json.loads(header["__metadata__"]["segcli"]))
        header["__metadata__"]["segcli"] = found if isinstance(found, str) else json.dumps(found)
        return safetensors(json.dumps(header).encode()) + whole[8 + length :]

    return changed


def tensor(begin: int, end: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [4], "data_offsets": [begin, end]}


WEIGHTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a header of 2^60 bytes": (lambda _: safetensors(b"{}", 2**60), "eader"),
    "tensors that overlap": (lambda _: safetensors(json.dumps(
        {"a": tensor(0, 16), "b": tensor(8, 24)}).encode()) + bytes(24), "expected weights"),
    "a pickle": (lambda _: pickle.dumps(_Touch()), "expected weights"),
    "a record of 50 MB": (with_record(lambda record: record | {"training": {"a": "a" * 50_000_000}, "format": 7}),
                          "format 7"),
    "a deep record": (with_record(lambda _: "[" * 10**5 + "]" * 10**5), "recursion"),
    "a width of a thousand millions": (with_record(lambda record: record | {
        "network": record["network"] | {"width": 10**9}}), "out of range"),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(tmp_path: Path, weights: Path, name: str, ready: Ready) -> None:
    change, words = WEIGHTS[name]
    (tmp_path / "w.safetensors").write_bytes(change(weights.read_bytes()))
    write_picture(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    refused(ready, tmp_path, "predict", "a.png", "--out", "out", "--weights", "w.safetensors", words=words)
    assert not (tmp_path / "unpickled").exists()


TABLES: dict[str, tuple[str, Callable[[], str], str]] = {
    "100 MB of JSON": ("c.json", lambda: "[" + "1," * 50_000_000 + "1]", "more than 4 MB"),
    "deep JSON": ("c.json", lambda: "[" * 10**6, "no"),
    "a hundred thousand classes": ("c.json", lambda: json.dumps({"classes": [{"index": 0, "name": "a"}] * 10**5}),
                                   "100000 classes"),
    "laughs": ("c.qml", lambda: BOMB + "<qgis>&a11;</qgis>", "entities"),
    "a file": ("c.qml", lambda: EXTERNAL + "<qgis>&a11;</qgis>", "entities"),
    "laughs behind QGIS's own line": ("c.qml", lambda: "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
                                      + BOMB + "<qgis>&a11;</qgis>", "entities"),
    "a hundred thousand rows": ("c.csv", lambda: "index,name\n" + "0,a\n" * 10**5, "100000 classes"),
    "a hundred thousand colours": ("c.gpl", lambda: "GIMP Palette\n" + "1 2 3 a\n" * 10**5, "100000 classes"),
    "a head of quotes": ("c.csv", lambda: "index,name,color" + ',"a' * 40_000 + "\nx,a\n", "not a class table"),
    "a name of a control character": ("c.csv", lambda: "index,name\n0,a\x01\n1,b\n", "control character '\\x01'"),
    "a number of a million digits": ("c.clr", lambda: "9" * 10**6 + " 1 2 3 a\n", "not a class table"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_class_tables(tmp_path: Path, name: str, ready: Ready) -> None:
    file, text, words = TABLES[name]
    (tmp_path / file).write_text(text())
    write_picture(tmp_path / "a.png", np.zeros((8, 8), np.uint8))
    table = ("--classes", file)
    refused(ready, tmp_path, "tile", "a.png", "--masks", "a.png", *table, "--size", 8, "--out", "out", words=words)


def first_tile(found: dict[str, Any]) -> dict[str, Any]:
    tile: dict[str, Any] = found["sources"][0]["tiles"][0]
    return tile


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a way up": (lambda found: first_tile(found).update(name="../secret.png"), "does not lie below its folder"),
    "a way from the top": (lambda found: first_tile(found).update(name="/etc/passwd"), "does not lie below its folder"),
    "a huge raster": (lambda found: found["sources"][0].update(height=10**18, width=10**18), "expected 1"),
    "a huge tile": (lambda found: first_tile(found).update(height=10**400), "no manifest of tiles"),
    "tiles of one pixel": (lambda found: found["options"].update(size=1, overlap=0), "expected 8"),
    "a raster by the name of the folder above": (
        lambda found: found["sources"][0].update(name=".."), "is no name of a file"),
    "a name that no file has": (lambda found: found["sources"][0].update(name="\ud800.png"), "no manifest of tiles"),
    "more kinds than bands": (lambda found: found["sources"][0]["stored"].update(kinds=["gray"] * 3), "1 bands"),
    "a number for a unit": (lambda found: found["sources"][0]["stored"].update(units=[5]), "5 where str is expected"),
    "nodata that no byte is": (lambda found: found["sources"][0]["stored"].update(nodata=300), "nodata 300 of uint8"),
    "a raster by the name of a place elsewhere": (
        lambda found: found["sources"][0].update(name="../../escaped"), "is no name of a file"),
}  # fmt: skip


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory, ready: Ready) -> Path:
    """A folder of the one tile of a picture."""
    folder = below(tmp_path_factory.mktemp("tiles"))
    write_picture(folder / "a.png", np.zeros((8, 8), np.uint8))
    assert run(ready, folder, "tile", "a.png", "--size", 8, "--out", "tiles").code == 0
    return folder / "tiles"


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_of_tiles(tmp_path: Path, tiles: Path, name: str, ready: Ready) -> None:
    change, words = MANIFESTS[name]
    write_picture(tmp_path / "secret.png", np.full((8, 8), 7, np.uint8))
    shutil.copytree(tiles, tmp_path / "tiles")
    found = json.loads((tmp_path / "tiles" / "tiles.json").read_text())
    change(found)
    (tmp_path / "tiles" / "tiles.json").write_text(json.dumps(found))
    refused(ready, tmp_path, "tile", "tiles", "--join", "--out", "out", words=words)


def polygon(corner: str) -> str:
    return ('{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"class": 1}, "geometry": '
            f'{{"type": "Polygon", "coordinates": [[{corner}, [4, 0], [4, 4], {corner}]]}}}}]}}')  # fmt: skip


POLYGONS = {
    "deep": polygon("[" * 10**5 + "]" * 10**5),
    "not numbers": polygon("[NaN, NaN]"),
    "more than all": polygon("[1e999, -1e999]"),
    "of a name that no chart can have": polygon("[0, 0]").replace('"class": 1', '"class": "a\\u0001"'),
}


def test_polygons_may_reach_far(tmp_path: Path, ready: Ready) -> None:
    (tmp_path / "a.geojson").write_text(polygon("[1e300, 1e300]"))
    write_picture(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    ended = run(ready, tmp_path, "tile", "a.png", "--masks", "a.geojson", "--size", 8, "--out", "out")
    assert (ended.code, ended.refusals) == (0, [])


def test_polygons_in_collections_of_collections_are_burnt(tmp_path: Path, ready: Ready) -> None:
    shape = json.loads(polygon("[0, 0]"))
    for _ in range(4):
        inner = shape["features"][0]["geometry"]
        shape["features"][0]["geometry"] = {"type": "GeometryCollection", "geometries": [inner]}
    (tmp_path / "a.geojson").write_text(json.dumps(shape))
    write_picture(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    ended = run(ready, tmp_path, "tile", "a.png", "--masks", "a.geojson", "--size", 8, "--out", "out")
    assert (ended.code, ended.refusals) == (0, [])
    assert cv2.imread(str(tmp_path / "out" / "masks" / "a_r00000_c00000.tif"), 0).any()


@pytest.mark.parametrize("name", POLYGONS)
def test_polygons(tmp_path: Path, name: str, ready: Ready) -> None:
    (tmp_path / "a.geojson").write_text(POLYGONS[name])
    write_picture(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    refused(ready, tmp_path, "tile", "a.png", "--masks", "a.geojson", "--size", 8, "--out", "out", words="a.geojson")


@pytest.mark.parametrize(
    ("text", "words"),
    [("a = '" + "a" * 100_000_000 + "'", "more than 1 MB"), ("a = " + "[" * 10**5, "no TOML"),
     ("out = '../escaped'\n[colorize]\nouter = 1", "outer")],
)  # fmt: skip
def test_options_in_a_file(tmp_path: Path, text: str, words: str, ready: Ready) -> None:
    (tmp_path / "segcli.toml").write_text(text)
    write_picture(tmp_path / "a.png", np.zeros((8, 8), np.uint8))
    refused(ready, tmp_path, "colorize", "a.png", "--out", "out", "--config", "segcli.toml", words=words)


@pytest.mark.parametrize(
    ("listed", "more", "words"),
    [(b"a\0b.png\n", (), "NUL"), (b"a\nsegcli: done 9.png\0", ("-0",), r"a\nsegcli: done 9.png: no such file"),
     (b"\xff\xfe" * 3000, (), "a"), (b"\0" * 10**6, ("-0",), "no names")],
)  # fmt: skip
def test_names_on_standard_input(tmp_path: Path, listed: bytes, more: Sequence[str], words: str, ready: Ready) -> None:
    refused(ready, tmp_path, "tile", "-", *more, "--size", 8, "--out", "out", words=words, stdin=listed)


def test_pipes_beside_data_are_not_waited_for(tmp_path: Path, weights: Path, ready: Ready) -> None:
    """Found unasked: a table, a record, what a VRT names, metadata of a Zarr."""
    write_picture(tmp_path / "masks" / "a.png", np.zeros((8, 8), np.uint8))
    for name in ("classes.json", "segcli.1-of-2.jsonl"):
        os.mkfifo(tmp_path / "masks" / name)
    ended = run(ready, tmp_path, "colorize", "masks", "--out", "out")
    assert (ended.code, ended.refusals) == (0, [])
    os.mkfifo(tmp_path / "pixels.tif")
    (tmp_path / "a.vrt").write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">pixels.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>'
    )
    refused(ready, tmp_path, "colorize", "a.vrt", "--out", "out", words="which is no file")
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    os.mkfifo(tmp_path / "a.zarr" / ".zattrs")
    refused(ready, tmp_path, "predict", "a.zarr", "--out", "out", "--weights", weights, words="a.zarr")


def test_devices_without_an_end_are_no_tables(tmp_path: Path, ready: Ready) -> None:
    write_picture(tmp_path / "a.png", np.zeros((8, 8), np.uint8))
    for option in (("eval", "a.png", "a.png", "--classes"), ("colorize", "a.png", "--out", "out", "--palette")):
        refused(ready, tmp_path, *option, "/dev/zero", words="more than 4 MB")


def test_a_record_of_names_that_no_file_has_is_passed_over(tmp_path: Path, ready: Ready) -> None:
    write_picture(tmp_path / "masks" / "a.png", np.zeros((8, 8), np.uint8))
    mark = '[1, 2, "00"]'
    line = f'{{"source": "x", "key": "k", "outputs": {{"a.png": {mark}, "\\ud800.png": {mark}}}, "of": {{}}}}'
    (tmp_path / "masks" / "segcli.jsonl").write_text(line + "\n")
    ended = run(ready, tmp_path, "colorize", "masks", "--out", "out")
    assert (ended.code, ended.refusals) == (0, [])


def many_classes(path: Path) -> None:
    classes = {str(n): f"c{n}" for n in range(100_000)}
    tifffile.imwrite(path, np.zeros((5, 64, 64), np.uint8), metadata={"classes": classes}, photometric="minisblack")


def many_descriptions(path: Path) -> None:
    ome = "<Description>" * 300_000
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(np.zeros((2, 32, 32), np.uint8), metadata={"axes": "ZYX", "Description": "a" * len(ome)})
    text = path.read_bytes().replace(b"a" * len(ome), b"<!--" + ome.encode()[:-7] + b"-->")
    path.write_bytes(text)


@pytest.mark.parametrize("make", [many_classes, many_descriptions])
def test_what_stacks_say_of_their_classes_takes_no_time(
    tmp_path: Path, ready: Ready, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "a.ome.tif" if make is many_descriptions else tmp_path / "a.tif")
    (path,) = tmp_path.iterdir()
    ended = run(ready, tmp_path, "colorize", path.name, "--out", "out")
    assert (ended.code, ended.refusals) == (0, [])


def test_planes_that_are_named_again_and_again_are_refused(tmp_path: Path, weights: Path, ready: Ready) -> None:
    entry = '<TiffData IFD="0" PlaneCount="2000"/>'
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=False) as file:
        for n in range(2000):
            pixels = (f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels '
                      'DimensionOrder="XYZCT" ID="Pixels:0" SizeC="1" SizeT="1" SizeX="4" SizeY="4" SizeZ="2000" '
                      f'Type="uint8">{entry * 100_000}</Pixels></Image></OME>')  # fmt: skip
            file.write(np.zeros((4, 4), np.uint8), description=pixels if n == 0 else None, metadata=None)
    words = "name 2000 planes more than twice"
    refused(ready, tmp_path, "predict", "a.ome.tif", "--out", "out", "--weights", weights, words=words)


def test_scores_that_are_no_numbers_are_no_mask(tmp_path: Path, weights: Path, ready: Ready) -> None:
    """All weights are numbers, but what they come to is not."""
    model = checkpoint.load(weights)
    for tensor in model.network.state_dict().values():
        if tensor.is_floating_point():
            tensor.fill_(3e38)
    checkpoint.save(model, tmp_path / "w.safetensors")
    write_picture(tmp_path / "a.png", np.full((8, 8, 3), 9, np.uint8))
    for stitch in ("stream", "windows"):
        arguments = ("predict", "a.png", "--out", "out", "--weights", "w.safetensors", "--stitch", stitch)
        refused(ready, tmp_path, *arguments, words="a.png: scores that are no numbers")
    small = with_record(lambda record: record | {"normalisation": record["normalisation"] | {"deviation": [1e-40] * 3}})
    (tmp_path / "w.safetensors").write_bytes(small(weights.read_bytes()))
    refused(ready, tmp_path, *arguments, words="that float32 cannot count in")


def test_a_bomb_is_refused_under_every_name_of_its_file(tmp_path: Path) -> None:
    """A file of a few bytes that claims gigabytes of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    for name in (path, f"/vsisubfile/0_,{path}"):
        with pytest.raises(InputError, match="bytes that claim 2 GB of pixels"), closing(open_images(name)):
            pass
