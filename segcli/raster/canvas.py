"""A picture in memory, for pictures that fit there: OpenCV encodes a PNG three times as fast as GDAL, and at once."""

import cv2
import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

MOST_BYTES = 2**28


class Canvas:
    """Takes windows as a dataset of GDAL's does: red, green, blue and maybe alpha, (band, row, col), uint8."""

    def __init__(self, height: int, width: int) -> None:
        self._colors = np.empty((height, width, 3), np.uint8)  # blue, green, red, as OpenCV has them
        self._alpha: NDArray[np.uint8] | None = None  # None while all is opaque

    def write(self, pixels: NDArray[np.uint8], window: Window) -> None:
        place = (
            slice(window.row_off, window.row_off + window.height),
            slice(window.col_off, window.col_off + window.width),
        )
        self._colors[place] = cv2.merge([pixels[2], pixels[1], pixels[0]])
        if len(pixels) == 4 and (self._alpha is not None or (pixels[3] != 255).any()):
            if self._alpha is None:
                self._alpha = np.full(self._colors.shape[:2], 255, np.uint8)
            self._alpha[place] = pixels[3]

    def png(self) -> bytes:
        """The file: with alpha where some of it is not opaque."""
        pixels = self._colors if self._alpha is None else cv2.merge([*cv2.split(self._colors), self._alpha])
        done, data = cv2.imencode(".png", pixels)
        if not done:
            raise OSError("OpenCV could not encode it")
        return data.tobytes()
