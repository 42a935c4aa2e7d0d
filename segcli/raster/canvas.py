"""A picture in memory, for pictures that fit there: OpenCV encodes a PNG three times as fast as GDAL, and at once."""

import cv2
import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

MOST_BYTES = 2**28


class Canvas:
    """Takes windows as a dataset of GDAL's does: red, green, blue and maybe alpha, (band, row, col), uint8."""

    def __init__(self, height: int, width: int, bands: int) -> None:
        self._pixels = np.empty((height, width, bands), np.uint8)  # blue, green, red, alpha, as OpenCV has them

    def write(self, pixels: NDArray[np.uint8], window: Window) -> None:
        bands = [pixels[n] for n in (2, 1, 0, 3)[: len(pixels)]]
        rows = slice(window.row_off, window.row_off + window.height)
        self._pixels[rows, window.col_off : window.col_off + window.width] = cv2.merge(bands)

    def png(self, bands: int) -> bytes:
        """The file, with so many of the bands."""
        done, data = cv2.imencode(".png", np.ascontiguousarray(self._pixels[..., :bands]))
        if not done:
            raise OSError("OpenCV could not encode it")
        return data.tobytes()
