"""Files that were made to do harm, given to the program itself: refused in one line, in bounded memory and time, with
nothing written but the record of the run, and nothing outside the output folder.

Each test makes its files; whoever wants to add one finds the pieces at the top.
"""

import gzip
import io
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from helpers import brightness_model, write_picture

from segcli.network import checkpoint

MEMORY, SECONDS = 4 << 30, 60
"""Bytes of data for a process that begins with half a GB of them; seconds on a busy machine."""

NOTES = ("done ", "failed: ", "weights: ", "tiles ", "0.00 Mpx at ")
"""How lines begin that tell of the run as a whole."""

RECORDS = {"segcli.jsonl"}

BOMB = '<!DOCTYPE a [<!ENTITY a0 "ha">' + "".join(
    f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12)
) + "]>"  # fmt: skip
"""A billion laughs: eleven entities, each of ten of the one before it."""

EXTERNAL = '<!DOCTYPE a [<!ENTITY a11 SYSTEM "file:///etc/passwd">]>'


@dataclass(frozen=True)
class Ended:
    """A run: its exit code, the lines about what was refused, the other lines, and files that it has made."""

    code: int
    refusals: list[str]
    said: list[str]
    made: set[str]


def run(folder: Path, *arguments: object, stdin: bytes = b"") -> Ended:
    """The program in `folder`, as a shell would run it, with less memory."""

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    before = files(folder)
    done = subprocess.run(
        [sys.executable, "-m", "segcli", *map(str, arguments)], cwd=folder, input=stdin, capture_output=True,
        timeout=SECONDS, check=False, preexec_fn=bounded, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    lines = done.stderr.decode(errors="backslashreplace").splitlines()
    refusals = [line for line in lines if line.startswith("segcli: ")]
    return Ended(done.returncode, refusals, [line for line in lines if line not in refusals], files(folder) - before)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def refused(folder: Path, *arguments: object, words: str, stdin: bytes = b"") -> str:
    """The one line that a run ends with that does nothing."""
    ended = run(folder, *arguments, stdin=stdin)
    assert ended.code in (1, 2, 3), ended
    assert len(ended.refusals) == 1, ended
    assert all(line.startswith(NOTES) for line in ended.said), ended
    assert {Path(name).name for name in ended.made} <= RECORDS, ended
    assert all(name.startswith("out/") for name in ended.made), ended
    assert words in ended.refusals[0], ended
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
    squeeze, block = zlib.compressobj(9), bytes(2**20)
    whole, rest = divmod(count, len(block))
    return b"".join([*(squeeze.compress(block) for _ in range(whole)), squeeze.compress(block[:rest]), squeeze.flush()])


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
    one = tiff(grey(8, 8, 64), bytes(64), following=PIXELS + 64)
    two = bytearray(tiff(grey(8, 8, 64), following=8)[8:PIXELS])
    return one + two


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
    "a TIFF of 2^31 by 2^31 pixels": ("a.tif", lambda: tiff(grey(2**31, 2**31, 64), bytes(64)), "2147483648"),
    "a TIFF of 2^31 pixels without any": ("a.tif", lambda: tiff(grey(2**16, 2**15, 0, 8)), "32768"),
    "one strip of 4 GB": ("a.tif", lambda: tiff(grey(2**16, 2**16, 2**32 - 1), bytes(64)), "a.tif"),
    "one compressed strip of 4 GB": ("a.tif", lambda: tiff(grey(2**16, 2**16, 64, 8), zeros(2**26)), "a.tif"),
    "pages in a circle": ("a.tif", looping, "loops"),
    "a million pages": ("a.tif", lambda: pages(10**6), "pages"),
    "laughs in OME metadata": ("a.ome.tif", lambda: ome(8, 8, BOMB + OME.format("&a11;")), "entities"),
    "a file in OME metadata": ("a.ome.tif", lambda: ome(8, 8, EXTERNAL + OME.format("&a11;")), "entities"),
    "deep OME metadata": ("a.ome.tif", lambda: ome(8, 8, OME.format("<a>" * 10**5 + "</a>" * 10**5)), "a.ome.tif"),
    "a million planes": ("a.ome.tif", lambda: ome(8, 8, OME.format(
        '<Image ID="Image:0"><Pixels DimensionOrder="XYZCT" Type="uint8" SizeX="8" SizeY="8" SizeZ="100000" '
        'SizeC="100000" SizeT="100000"><TiffData IFD="0" PlaneCount="1000000000000000"/></Pixels></Image>')), "planes"),
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
def test_images(tmp_path: Path, name: str) -> None:
    file, make, words = IMAGES[name]
    (tmp_path / file).write_bytes(make())
    refused(tmp_path, "tile", file, "--size", 64, "--out", "out", words=words)


def test_a_night_among_them(tmp_path: Path, weights: Path) -> None:
    """Each is one line, and the good file among them is done."""
    for number, (file, make, _) in enumerate(IMAGES.values()):
        (tmp_path / "scans" / str(number)).mkdir(parents=True)
        (tmp_path / "scans" / str(number) / file).write_bytes(make())
    write_picture(tmp_path / "scans" / "good.png", np.full((20, 20, 3), 200, np.uint8))
    names = sorted((tmp_path / "scans").glob("*/*"))
    listed = "\n".join(str(path.relative_to(tmp_path)) for path in names).encode()
    for path in names:  # each name once: outputs of two of them must not have the same
        path.rename(path.with_name(f"{path.parent.name}-{path.name}"))
    listed = "\n".join(str(p.relative_to(tmp_path)) for p in sorted((tmp_path / "scans").glob("*/*"))).encode()
    ended = run(tmp_path, "predict", "-", "scans/good.png", "--out", "out", "--weights", weights, stdin=listed)
    assert ended.code == 1, ended
    assert len(ended.refusals) == len(names), ended
    assert all(line.startswith((*NOTES, "failed:")) for line in ended.said), ended
    assert ended.made == {"out/good.png", "out/segcli.jsonl"}
