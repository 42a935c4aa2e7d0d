"""What a file says of its pixels besides the pixels: everything that a copy of a part of it has to say again."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.rpc import RPC
from rasterio.transform import Affine

from segcli.raster.facts import blacks_of, dataset_of, of_bands, palette_of
from segcli.raster.gdal import alpha_is_mask
from segcli.raster.grid import Grid
from segcli.raster.readers import DecodedReader, GdalReader, JoinedReader
from segcli.raster.sink import Layout, resolution_tags
from segcli.raster.source import Source

ABOUT_PIXELS = ("STATISTICS_", "EXIF_", "OVR_")
"""Metadata that begin so are true of the whole file alone, or of how it was taken."""

OF_GDAL = frozenset({
    "IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "SUBDATASETS", "RPC", "COLOR_PROFILE", "EXIF", "GEOLOCATION", "ENVI",
    "LocationInfo", "vrt_sources", "NITF_METADATA",
})  # fmt: skip
"""Domains of metadata in which GDAL says how the file is made, beside those with a colon (xml:XMP)."""

IN_FILES = frozenset({"IMD"})
"""Domains that GDAL would write into a file beside each tile: they are not kept."""

OF_ALL: list[MaskFlags] = [MaskFlags.per_dataset]
OF_ITS_OWN: list[MaskFlags] = []
"""Flags of a band with a mask that lies beside the bands, and of one with a mask of no other."""


@dataclass(frozen=True)
class Stored:
    """`kinds` are the bands' colour interpretations by GDAL's names, `colors` (value to RGBA) is the palette, `bits`
    are those in use of a sample where its dtype has more, `has_mask` says that a mask lies beside the bands,
    `band_nodata` is that of each band where `nodata`, the first one's, is not that of all; `domains` are tags by their
    domain, of the file and then of each band. With `white_is_zero` it is a negative, of which no palette says so, with
    `band_masks` each of several bands has a mask of its own, of which what is no data in all of them is kept.
    """

    bands: int
    dtype: str
    nodata: float | None = None
    kinds: tuple[str, ...] = ()
    colors: Mapping[int, tuple[int, ...]] | None = None
    names: tuple[str, ...] = ()
    scales: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    units: tuple[str, ...] = ()
    bits: int | None = None
    has_mask: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    band_tags: tuple[Mapping[str, str], ...] = ()
    band_nodata: tuple[float | None, ...] = ()
    domains: tuple[Mapping[str, Mapping[str, str]], ...] = ()
    white_is_zero: bool = False
    band_masks: bool = False

    @property
    def domains_to_write(self) -> list[tuple[int, str, Mapping[str, str]]]:
        """(0 for the file or the number of the band, domain, tags)."""
        found = ((n, name, tags) for n, named in enumerate(self.domains) for name, tags in named.items())
        return [one for one in found if one[1] not in IN_FILES]

    @property
    def has_alpha(self) -> bool:
        return "alpha" in self.kinds

    @property
    def empty(self) -> Any:
        """What pixels hold that are no data, in the file's dtype: 0 where the file does not say."""
        return np.asarray(self.nodata or 0).astype(self.dtype)[()]

    @property
    def can_be_empty(self) -> bool:
        """Whether such pixels are told from data."""
        by_alpha = self.has_alpha and alpha_is_mask(self.kinds.index("alpha"), self.bands, self.dtype)
        return self.nodata is not None or self.has_mask or by_alpha

    def to_json(self) -> dict[str, Any]:
        """What JSON has no number for is text."""
        values = asdict(self)
        if self.colors is not None:
            values["colors"] = {str(value): list(color) for value, color in self.colors.items()}
        return values | {"nodata": _number(self.nodata), "band_nodata": [_number(value) for value in self.band_nodata]}

    @classmethod
    def from_json(cls, values: Any) -> "Stored":
        """Raises ValueError, KeyError or TypeError where they are none."""
        colors = values["colors"]
        lists = ("kinds", "names", "scales", "offsets", "units", "band_tags")
        known = {**values, **{name: tuple(values[name]) for name in lists}}
        known["nodata"] = _from_number(values["nodata"])
        # Older versions had none of these.
        known["band_nodata"] = tuple(map(_from_number, values.get("band_nodata", ())))
        known["domains"] = tuple(
            {name: dict(tags) for name, tags in dict(named).items()} for named in values.get("domains", ())
        )
        if colors is not None:
            known["colors"] = {int(value): tuple(map(int, color)) for value, color in colors.items()}
        if np.dtype(known["dtype"]).kind not in "uifc":
            raise ValueError(f"dtype {known['dtype']!r}")
        if type(known["bands"]) is not int or known["bands"] < 1:
            raise ValueError(f"{known['bands']} bands")
        found = cls(**known)
        found._check()
        return found

    def _check(self) -> None:
        """ValueError where parts of it are none, or not of as many bands."""
        by_band = (self.scales, self.offsets, self.units, self.names)
        if len(self.kinds) != self.bands or any(len(part) not in (0, self.bands) for part in by_band):
            raise ValueError(f"kinds, scales, offsets, units or names that are not those of {self.bands} bands")
        numbers = [*self.scales, *self.offsets, *(() if self.nodata is None else (self.nodata,))]
        texts = [*self.kinds, *self.names, *self.units, *self.tags.keys(), *self.tags.values()]
        for part, kinds in ((numbers, (int, float)), (texts, (str,)), (self.band_tags, (dict,))):
            if odd := [value for value in part if not isinstance(value, kinds)]:
                raise ValueError(f"{odd[0]!r:.40} where {kinds[-1].__name__} is expected")
        if self.nodata is not None and np.dtype(self.dtype).kind in "ui" and not math.isnan(self.nodata):
            limits = np.iinfo(self.dtype)
            if not limits.min <= self.nodata <= limits.max:
                raise ValueError(f"nodata {self.nodata:g} of {self.dtype}")


_RGBA = ("red", "green", "blue", "alpha")


def stored(source: Source) -> Stored:
    """Of a source that was opened as stored."""
    reader = source.reader
    is_negative = any(black is not None for black in blacks_of(reader))
    if isinstance(reader, JoinedReader):
        return replace(_of_pages(source, reader), white_is_zero=is_negative)
    if not isinstance(reader, GdalReader | DecodedReader) or source.bands != reader.dataset.count:
        kinds = {1: ("gray",), 3: _RGBA[:3], 4: _RGBA}.get(source.bands, ("undefined",) * source.bands)
        kinds = ("gray", *("undefined",) * (source.bands - 1)) if is_negative else kinds
        return Stored(source.bands, source.dtype, kinds=kinds, names=source.band_names,
                      tags=resolution_tags(source.grid), white_is_zero=is_negative)  # fmt: skip
    dataset = reader.dataset
    kinds, palette = tuple(kind.name for kind in dataset.colorinterp), palette_of(dataset)
    if kinds[0] == "palette" and palette is None:
        kinds = ("gray", *kinds[1:])
    # GDAL makes up a palette for negatives, which says as much; of 16 bits it has 65 536 colours.
    has_palette = kinds == ("palette",) and source.dtype == "uint8"
    if is_negative and not has_palette:
        kinds = ("gray", *kinds[1:])
    bits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
    return Stored(
        source.bands, source.dtype, dataset.nodata, kinds,
        palette if kinds[0] == "palette" else None,
        source.band_names, tuple(dataset.scales), tuple(dataset.offsets),
        tuple(unit or "" for unit in dataset.units), int(bits) if bits is not None else None,
        any(flags in (OF_ALL, OF_ITS_OWN) for flags in dataset.mask_flag_enums),
        _tags(source, dataset), tuple(_kept(dataset.tags(n)) for n in dataset.indexes),
        () if all(is_same(dataset.nodata, value) for value in dataset.nodatavals) else tuple(dataset.nodatavals),
        tuple(_domains(dataset, n) for n in (0, *dataset.indexes)), is_negative and not has_palette,
        dataset.count > 1 and OF_ITS_OWN in dataset.mask_flag_enums,
    )  # fmt: skip


def _of_pages(source: Source, reader: JoinedReader) -> Stored:
    """Of bands that have a page each: three of them are no colours, as those within a page may be."""
    first = dataset_of(reader)
    return Stored(
        source.bands, source.dtype, source.nodata, ("gray", *("undefined",) * (source.bands - 1)),
        names=source.band_names, scales=source.scales,
        offsets=tuple(of_bands(reader, lambda dataset: dataset.offsets, 0.0)),
        tags=resolution_tags(source.grid) if first is None else _tags(source, first),
    )  # fmt: skip


def stored_as(layout: Layout) -> Stored:
    """What `sink.create` would write."""
    kind = ("palette",) if layout.colors is not None else ("gray", *("undefined",) * (layout.bands - 1))
    colors = {value: (*color, 255) for value, color in (layout.colors or {}).items()}
    tags = {f"CLASS_{value}": name for value, name in layout.class_names.items()}
    return Stored(
        layout.bands, layout.dtype, layout.nodata, kind, colors or None, layout.names, tags=tags, band_tags=(tags,)
    )


def lost(asked: Stored, found: Stored) -> list[str]:
    """What of the one is not in the other, in words; metadata count by what is missing."""
    said = []
    if not is_same(asked.nodata, found.nodata):
        said.append(f"nodata {asked.nodata:g}" if asked.nodata is not None else "that no value is nodata")
    if asked.band_nodata:
        said.append("that nodata differs by band")
    if asked.kinds != found.kinds:
        said.append(f"the colour interpretation {', '.join(asked.kinds)}")
    # GDAL makes the colour of nodata transparent, whatever it was.
    if asked.colors is not None and any(
        (found.colors or {}).get(v, ())[: 3 if v == asked.nodata else 4] != c[: 3 if v == asked.nodata else 4]
        for v, c in asked.colors.items()
    ):
        said.append("colours of the palette" if found.colors else "the palette")
    if any(asked.names) and asked.names != found.names:
        said.append("names of bands")
    numbers = {*asked.scales} <= {1.0} and {*asked.offsets} <= {0.0}
    if not numbers and (asked.scales, asked.offsets) != (found.scales, found.offsets):
        said.append("scales and offsets")
    if any(asked.units) and asked.units != found.units:
        said.append("units")
    if asked.bits is not None and asked.bits != found.bits:
        said.append(f"that {asked.bits} bits are in use")
    if asked.white_is_zero and not found.white_is_zero:
        said.append("that 0 is white")
    if asked.has_mask and not found.has_mask:
        said.append("the mask")
    if asked.band_masks:
        said.append("that masks differ by band")
    one, other = [asked.tags, *asked.band_tags], [found.tags, *found.band_tags]
    if any(_missing(ours, theirs) for ours, theirs in zip(one, other, strict=False)):
        said.append("some metadata")
    pairs = zip(asked.domains, found.domains or ({},) * len(asked.domains), strict=False)
    missing = {name for ours, theirs in pairs for name, tags in ours.items() if _missing(tags, theirs.get(name, {}))}
    if missing:
        said.append(f"metadata of {', '.join(sorted(missing))}")
    return said


def place_to_json(grid: Grid) -> dict[str, Any]:
    """Where it lies."""
    points = [[p.row, p.col, p.x, p.y, p.z, p.id, p.info] for p in grid.gcps]
    return {
        "height": grid.height, "width": grid.width, "crs": grid.crs.to_wkt() if grid.crs is not None else None,
        "transform": list(grid.transform)[:6] if grid.transform is not None else None, "gcps": points,
        "gcps_crs": grid.gcps_crs.to_wkt() if grid.gcps_crs is not None else None,
        "rpcs": grid.rpcs.to_dict() if grid.rpcs is not None else None, "calibration": dict(grid.calibration),
    }  # fmt: skip


def place_from_json(values: Any) -> Grid:
    """Raises what parsers of odd values raise."""
    height, width = values["height"], values["width"]
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise ValueError(f"a size of {height} x {width}")
    crs, gcps_crs, rpcs = values["crs"], values["gcps_crs"], values["rpcs"]
    return Grid(
        height, width, CRS.from_wkt(crs) if crs else None,
        Affine(*map(float, values["transform"])) if values["transform"] else None,
        tuple(GroundControlPoint(*point) for point in values["gcps"]),
        CRS.from_wkt(gcps_crs) if gcps_crs else None, RPC(**rpcs) if rpcs else None, dict(values["calibration"]),
    )  # fmt: skip


def _kept(tags: Mapping[str, str]) -> dict[str, str]:
    kept = {key: text for key, text in tags.items() if not key.startswith(ABOUT_PIXELS)}
    if _is_of_whole(kept.get("TIFFTAG_IMAGEDESCRIPTION", "")):
        del kept["TIFFTAG_IMAGEDESCRIPTION"]
    return kept


def _tags(source: Source, dataset: Any) -> dict[str, str]:
    """Of the file. Where the size of a pixel was said in a description that is not kept, resolution tags say it."""
    tags = dataset.tags()
    kept = _kept(tags)
    if "TIFFTAG_IMAGEDESCRIPTION" in tags.keys() - kept.keys():
        kept |= resolution_tags(source.grid)
    return kept


def _is_of_whole(description: str) -> bool:
    """Whether it counts the pages or pixels of the file, as OME, ImageJ, tifffile and scanners of slides write it:
    readers of a tile would look for them there."""
    text = description.strip("\0 \r\n\t")
    ends = ("OME>", "</scn>", "</DataObject>", "</PerkinElmer-QPI-ImageDescription>", "</MetaData>")
    return (
        text.startswith(("Aperio ", "ImageJ=", "shape=")) or text.endswith(ends)
        or (text.startswith("{") and '"shape":' in text)
    )  # fmt: skip


def _domains(dataset: Any, number: int) -> dict[str, dict[str, str]]:
    """Of the file (0) or of a band."""
    names = [name for name in dataset.tag_namespaces(number) if name and name not in OF_GDAL and ":" not in name]
    return {name: _kept(dataset.tags(number, ns=name)) for name in names}


def _number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)


def _from_number(value: Any) -> float | None:
    return value if value is None or isinstance(value, int) else float(value)


def is_same(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and math.isnan(one) and math.isnan(other))


def kind_of(name: str) -> ColorInterp:
    """By GDAL's name; undefined where it is none."""
    return ColorInterp.__members__.get(name, ColorInterp.undefined)


def _missing(asked: Mapping[str, str], found: Mapping[str, str]) -> bool:
    return any(found.get(key) != text for key, text in asked.items() if key != "AREA_OR_POINT")
