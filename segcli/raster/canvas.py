"""A picture in memory, for pictures that fit there: OpenCV encodes a PNG three times as fast as GDAL, and at once."""

import cv2
import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

MOST_BYTES = 2**28


class Canvas:
    """Takes windows as a dataset of GDAL's does: red, green, blue and maybe alpha, (band, row, col), uint8."""

    def __init__(self, height: int, width: int) -> None:
        # Blue, green, red, as OpenCV has them; then alpha, once some of it is not opaque.
        self._pixels: NDArray[np.uint8] = np.empty((height, width, 3), np.uint8)

    def write(self, pixels: NDArray[np.uint8], window: Window) -> None:
        place = (
            slice(window.row_off, window.row_off + window.height),
            slice(window.col_off, window.col_off + window.width),
        )
        if len(pixels) == 4 and self._pixels.shape[2] == 3 and (pixels[3] != 255).any():
            self._pixels = np.asarray(cv2.cvtColor(self._pixels, cv2.COLOR_BGR2BGRA), np.uint8)  # opaque so far
        bands = [pixels[2], pixels[1], pixels[0]]
        if self._pixels.shape[2] == 4:
            bands.append(pixels[3])
        self._pixels[place] = cv2.merge(bands)

    def png(self) -> bytes:
        """The file: with alpha where some of it is not opaque."""
        done, data = cv2.imencode(".png", self._pixels)
        if not done:
            raise OSError("OpenCV could not encode it")
        return data.tobytes()
