"""Whether two rasters lie on one grid."""

from segcli.raster.align import aligned, differ

__all__ = ["aligned", "differ"]
