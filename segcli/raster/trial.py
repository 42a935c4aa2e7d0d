"""Opening a file in a process of its own first, where a library may never come back from a damaged one."""

import subprocess
import sys
from functools import lru_cache
from pathlib import Path

SECONDS = 60.0
"""For one file. HDF5 reads its tables of contents alone, whatever it holds."""

HDF5, HDF5_PLACES = b"\x89HDF\r\n\x1a\n", (0, 512, 1024, 2048)

PROGRAM = """
import sys, warnings
import rasterio
warnings.simplefilter("ignore")
try:
    rasterio.open(sys.argv[1]).close()
except Exception:
    pass
"""


def is_hdf5(head: bytes) -> bool:
    """By the first bytes of a file, as netCDF 4 is, too."""
    return any(head[place : place + len(HDF5)] == HDF5 for place in HDF5_PLACES)


def check_opens(name: str, path: Path) -> None:
    """OSError where GDAL does not come back from opening what it knows by that name, in the file `path`. What it says
    against the file is left for who opens it next."""
    found = path.stat()
    if why := _why_not(name, found.st_size, found.st_mtime_ns):
        raise OSError(why)


@lru_cache(1024)
def _why_not(name: str, size: int, mtime_ns: int) -> str:
    """Once for each file as it is: several steps open it, and a process takes a quarter of a second."""
    program = [sys.executable, "-P", "-c", PROGRAM, name]  # -P: a rasterio.py beside the user's files is not imported
    try:
        ended = subprocess.run(program, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               timeout=SECONDS, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"the library for it did not open it in {SECONDS:g} s; it is damaged"
    if ended.returncode > 0:
        return f"a process to open it in first ended with status {ended.returncode}"
    return f"the library for it falls over it (signal {-ended.returncode}); it is damaged" * (ended.returncode < 0)
